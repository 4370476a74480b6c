/** Talking to a model that was trained here, or to two at once. */
import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { useModels } from "../api/queries";
import { may } from "../api/session";
import { navigate } from "../router";
import { t } from "../texts";
import { Button, Failure, LinkButton, Note, Page } from "../ui/basics";
import { AnswerView } from "./chat/AnswerView";
import { History } from "./chat/History";
import { Question } from "./chat/Question";
import { SettingsForm } from "./chat/SettingsForm";
import { type Settings, useConversation } from "./chat/useConversation";

export function ChatPage({ wanted, beside }: { wanted: string | null; beside: string | null }) {
  const models = useModels();
  const names = models.data?.data.map((model) => model.id) ?? [];
  const model = wanted ?? (names.includes("latest") ? "latest" : names[0]);
  if (models.error) return <Failure error={models.error} again={() => void models.refetch()} />;
  if (models.isPending) return <p className="text-soft">{t.app.loading}</p>;
  if (model === undefined)
    return (
      <Page title={t.chat.title}>
        <Note>{t.chat.noModels}</Note>
        {may("read") && (
          <LinkButton to="/" className="self-start">
            {t.app.goHome}
          </LinkButton>
        )}
      </Page>
    );
  return <Talk models={beside ? [model, beside] : [model]} names={names} />;
}

const START: Settings = { system: "", sampling: { temperature: 0.7 }, probabilities: true };

function Talk({ models, names }: { models: string[]; names: string[] }) {
  const { id, exchanges, history, busy, send, show, forget, stop } = useConversation();
  const [text, setText] = useState("");
  const [settings, setSettings] = useState(START);
  const input = useRef<HTMLTextAreaElement>(null);
  const end = useRef<HTMLDivElement>(null);
  const said = exchanges.at(-1)?.answers.map(({ content }) => content.length).join();
  const two = models.length === 2;

  useEffect(() => {
    // braces: newer browsers return a promise here, which an effect must not
    end.current?.scrollIntoView({ block: "end" });
  }, [said, exchanges.length]);

  const submit = (question: string) => {
    if (!question.trim() || busy) return;
    setText("");
    void send(question.trim(), models, settings);
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
    <div className="lg:grid lg:grid-cols-[13rem_1fr] lg:gap-6">
      <aside aria-label={t.chat.history} className="hidden lg:block">
        <div className="sticky top-18 max-h-[calc(100dvh-6rem)] overflow-y-auto">
          <History history={history} current={id} onShow={show} onForget={forget} />
        </div>
      </aside>
      <div className={`mx-auto flex min-h-[calc(100dvh-5rem)] w-full flex-col sm:min-h-[calc(100dvh-6rem)] ${two ? "" : "max-w-3xl"}`}>
        <div className="flex flex-wrap items-center gap-2 border-b border-line pb-3">
          <h1 className="sr-only">{t.chat.title}</h1>
          <Models models={models} names={names} />
          <Button onClick={() => show(null)} disabled={exchanges.length === 0}>
            {t.chat.clear}
          </Button>
          <details className="w-full">
            <summary className="w-fit text-soft hover:text-ink">{t.chat.settings}</summary>
            <SettingsForm settings={settings} onChange={setSettings} />
          </details>
          <details className="w-full lg:hidden">
            <summary className="w-fit text-soft hover:text-ink">{t.chat.history}</summary>
            <History history={history} current={id} onShow={show} onForget={forget} />
          </details>
        </div>

        <ol className="flex flex-1 flex-col gap-4 py-4">
          {exchanges.map(({ id: key, question, answers }, i) => (
            <li key={key} className="flex flex-col gap-3">
              <div className="flex justify-end">
                <Question text={question} busy={busy} onResend={(changed) => void send(changed, models, settings, i)} />
              </div>
              <div className={answers.length > 1 ? "grid gap-4 sm:grid-cols-2 sm:gap-8" : ""}>
                {answers.map((answer, place) => (
                  <AnswerView key={place} answer={answer} named={answers.length > 1} />
                ))}
              </div>
            </li>
          ))}
          {exchanges.length === 0 && <Hello onAsk={submit} />}
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
    </div>
  );
}

/** The models that answer; their names are in the address, so that a link opens the same ones. */
function Models({ models, names }: { models: readonly string[]; names: readonly string[] }) {
  const [first, second] = models;
  const open = (one: string | undefined, two?: string) =>
    navigate(`/chat?${new URLSearchParams({ model: one ?? "", ...(two && { beside: two }) })}`, { replace: true });
  const picker = (label: string, value: string, choose: (name: string) => void) => (
    <select className="field min-w-0 flex-1 font-mono" aria-label={label} value={value} onChange={(event) => choose(event.target.value)}>
      {[...new Set([value, ...names])].map((name) => (
        <option key={name}>{name}</option>
      ))}
    </select>
  );
  return (
    <>
      {picker(t.chat.model, first ?? "", (name) => open(name, second))}
      {second !== undefined && picker(t.chat.second, second, (name) => open(first, name))}
      <Button aria-pressed={second !== undefined} onClick={() => open(first, second === undefined ? (names.find((name) => name !== first) ?? first) : undefined)}>
        {second === undefined ? t.chat.two : t.chat.one}
      </Button>
    </>
  );
}

function Hello({ onAsk }: { onAsk: (question: string) => void }) {
  return (
    <li className="m-auto flex flex-col items-center gap-3 text-center text-soft">
      <p>{t.chat.hello}</p>
      <div className="flex flex-wrap justify-center gap-2">
        {t.chat.suggestions.map((question) => (
          <Button key={question} onClick={() => onAsk(question)}>
            {question}
          </Button>
        ))}
      </div>
    </li>
  );
}
