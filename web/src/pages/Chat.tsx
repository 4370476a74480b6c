/** Talking to a model that was trained here. What it writes is shown as text, never as markup. */
import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { useModels } from "../api/queries";
import { number } from "../lib/format";
import { navigate } from "../router";
import { t } from "../texts";
import { Button, Failure, LinkButton, Note, Page } from "../ui/basics";
import { useNow } from "../ui/useNow";
import { type Turn, useConversation } from "./chat/useConversation";

export function ChatPage({ wanted }: { wanted: string | null }) {
  const models = useModels();
  const names = models.data?.data.map((model) => model.id) ?? [];
  const model = wanted ?? (names.includes("latest") ? "latest" : names[0]);
  if (models.error) return <Failure error={models.error} again={() => void models.refetch()} />;
  if (models.isPending) return <p className="text-soft">{t.app.loading}</p>;
  if (model === undefined)
    return (
      <Page title={t.chat.title}>
        <Note>{t.chat.noModels}</Note>
        <LinkButton to="/" className="self-start">
          {t.app.goHome}
        </LinkButton>
      </Page>
    );
  return <Conversation model={model} names={names.includes(model) ? names : [model, ...names]} />;
}

function Conversation({ model, names }: { model: string; names: string[] }) {
  const { turns, busy, send, stop, clear } = useConversation();
  const [text, setText] = useState("");
  const [settings, setSettings] = useState({ system: "", temperature: 0.7, maxTokens: null as number | null });
  const input = useRef<HTMLTextAreaElement>(null);
  const end = useRef<HTMLDivElement>(null);
  const said = turns.at(-1)?.content;

  useEffect(() => {
    // braces: newer browsers return a promise here, which an effect must not
    end.current?.scrollIntoView({ block: "end" });
  }, [said, turns.length]);

  const submit = (question: string) => {
    if (!question.trim() || busy) return;
    setText("");
    void send(question.trim(), { model, ...settings });
    input.current?.focus();
  };
  const onSubmit = (event: FormEvent) => {
    event.preventDefault();
    submit(text);
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit(text);
  };

  return (
    <div className="mx-auto flex min-h-[calc(100dvh-5rem)] max-w-3xl flex-col sm:min-h-[calc(100dvh-6rem)]">
      <div className="flex flex-wrap items-center gap-2 border-b border-line pb-3">
        <h1 className="sr-only">{t.chat.title}</h1>
        <select className="field max-w-full flex-1 font-mono" aria-label={t.chat.model} value={model} onChange={(event) => navigate(`/chat?model=${encodeURIComponent(event.target.value)}`, { replace: true })}>
          {names.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <Button onClick={clear} disabled={turns.length === 0}>
          {t.chat.clear}
        </Button>
        <details className="w-full">
          <summary className="w-fit text-soft hover:text-ink">{t.chat.settings}</summary>
          <div className="mt-2 grid gap-3 sm:grid-cols-2">
            <label className="flex flex-col gap-1 sm:col-span-2">
              {t.chat.system}
              <textarea rows={2} className="field" value={settings.system} onChange={(event) => setSettings({ ...settings, system: event.target.value })} />
            </label>
            <label className="flex flex-col gap-1">
              <span>
                {t.chat.temperature} <output className="font-medium">{settings.temperature}</output>
              </span>
              <input
                type="range"
                min={0}
                max={2}
                step={0.1}
                className="accent-(--accent)"
                value={settings.temperature}
                onChange={(event) => setSettings({ ...settings, temperature: Number(event.target.value) })}
              />
            </label>
            <label className="flex flex-col gap-1">
              {t.chat.maxTokens}
              <input
                type="number"
                min={1}
                max={8192}
                className="field"
                placeholder={t.create.auto}
                value={settings.maxTokens ?? ""}
                onChange={(event) => setSettings({ ...settings, maxTokens: Number(event.target.value) || null })}
              />
            </label>
          </div>
        </details>
      </div>

      <ol className="flex flex-1 flex-col gap-4 py-4">
        {turns.map((turn) => (
          <li key={turn.id} className={turn.role === "user" ? "flex justify-end" : ""}>
            {turn.role === "user" ? (
              <div className="max-w-[85%] rounded-2xl rounded-br-sm bg-well px-4 py-2 break-words whitespace-pre-wrap">
                <span className="sr-only">{t.chat.you}: </span>
                {turn.content}
              </div>
            ) : (
              <Answer turn={turn} />
            )}
          </li>
        ))}
        {turns.length === 0 && (
          <li className="m-auto flex flex-col items-center gap-3 text-center text-soft">
            <p>{t.chat.hello}</p>
            <div className="flex flex-wrap justify-center gap-2">
              {t.chat.suggestions.map((question) => (
                <Button key={question} onClick={() => submit(question)}>
                  {question}
                </Button>
              ))}
            </div>
          </li>
        )}
      </ol>

      <form onSubmit={onSubmit} className="sticky bottom-0 flex items-end gap-2 bg-paper pt-1 pb-[max(0.75rem,env(safe-area-inset-bottom))]">
        <textarea
          ref={input}
          autoFocus
          rows={Math.min(8, text.split("\n").length)}
          className="field flex-1 resize-none px-3 py-2"
          aria-label={t.chat.message}
          placeholder={t.chat.placeholder}
          value={text}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={onKey}
        />
        {busy ? (
          <Button className="py-2" onClick={stop}>
            {t.chat.stop}
          </Button>
        ) : (
          <Button type="submit" look="primary" className="py-2" disabled={!text.trim()}>
            {t.chat.send}
          </Button>
        )}
      </form>
      <div ref={end} />
    </div>
  );
}

/** By then a model that is loaded has begun to answer. */
const SLOW_MS = 1500;

function Answer({ turn }: { turn: Turn }) {
  const endings: Record<string, string> = { length: t.chat.cut, stopped: t.chat.stopped };
  const facts = [
    turn.tokens !== undefined && !turn.open && t.chat.tokens(turn.tokens),
    turn.tokensPerSecond !== undefined && t.chat.speed(number(Math.round(turn.tokensPerSecond))),
    turn.finish && endings[turn.finish],
  ].filter(Boolean);
  const waiting = turn.open === true && turn.content === "";
  const slow = useNow(waiting ? 500 : null) - turn.askedAt > SLOW_MS;
  return (
    <div className="max-w-full">
      <div data-testid="answer" aria-busy={turn.open} aria-live="polite" className="leading-relaxed break-words whitespace-pre-wrap">
        {turn.content}
        {turn.open && <span aria-hidden className="ml-0.5 inline-block h-4 w-1.5 translate-y-0.5 bg-accent motion-safe:animate-pulse" />}
      </div>
      {waiting && slow && <p className="text-soft">{t.chat.loading}</p>}
      {turn.error !== undefined && <Failure error={turn.error} />}
      {facts.length > 0 && <p className="text-xs text-soft">{facts.join(" · ")}</p>}
    </div>
  );
}
