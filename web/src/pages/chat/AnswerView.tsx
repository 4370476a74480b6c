/** One answer: text as it is written, how fast, and on demand how sure the model was of each token. */
import { type KeyboardEvent, memo, useState } from "react";
import type { Likely, Token } from "../../lib/chat";
import { number } from "../../lib/format";
import type { Answer } from "../../lib/history";
import { toHtml } from "../../lib/markdown";
import { t } from "../../texts";
import { Note } from "../../ui/basics";
import { useNow } from "../../ui/useNow";

/** By then a model that is loaded has begun to answer. */
const SLOW_MS = 1500;

export function AnswerView({ answer, named }: { answer: Answer; named: boolean }) {
  const [asTokens, setAsTokens] = useState(false);
  const { content, open, finish, tokens, tokensPerSecond, probabilities, error } = answer;
  const endings: Record<string, string> = { length: t.chat.cut, stopped: t.chat.stopped };
  const facts = [
    tokens !== undefined && !open && t.chat.tokens(tokens),
    tokensPerSecond !== undefined && t.chat.speed(number(Math.round(tokensPerSecond))),
    finish && endings[finish],
  ].filter(Boolean);
  const waiting = open === true && content === "";
  const slow = useNow(waiting ? 500 : null) - answer.askedAt > SLOW_MS;
  const known = (probabilities?.length ?? 0) > 0;
  return (
    <div className="min-w-0">
      {named && <p className="truncate font-mono text-xs text-soft">{answer.model}</p>}
      <div data-testid="answer" aria-busy={open === true} aria-live="polite" className="leading-relaxed break-words">
        {asTokens && known ? <Tokens tokens={probabilities ?? []} /> : <Markdown text={content} />}
        {open && <span aria-hidden className="ml-0.5 inline-block h-4 w-1.5 translate-y-0.5 bg-accent motion-safe:animate-pulse" />}
      </div>
      {waiting && slow && <p className="text-soft">{t.chat.loading}</p>}
      {error !== undefined && <Note tone="bad">{error}</Note>}
      <p className="flex flex-wrap gap-x-3 text-xs text-soft">
        {facts.length > 0 && <span>{facts.join(" · ")}</span>}
        {known && !open && (
          <button type="button" aria-pressed={asTokens} className="text-accent underline-offset-2 hover:underline" onClick={() => setAsTokens(!asTokens)}>
            {asTokens ? t.chat.asText : t.chat.asTokens}
          </button>
        )}
      </p>
    </div>
  );
}

const Markdown = memo(function Markdown({ text }: { text: string }) {
  // sanitised: see lib/markdown
  return <div className="written" dangerouslySetInnerHTML={{ __html: toHtml(text) }} />;
});

/** The less sure, the stronger the mark; pointing at a token, or walking with the arrow keys, lists what else was
 *  likely. Spans, because buttons would not break with their line. */
function Tokens({ tokens }: { tokens: readonly Token[] }) {
  const [at, setAt] = useState<number | null>(null);
  const token = at === null ? undefined : tokens[at];
  const onKey = (event: KeyboardEvent) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    setAt(Math.min(tokens.length - 1, Math.max(0, (at ?? -1) + by)));
  };
  return (
    <div>
      <div className="whitespace-pre-wrap" role="group" aria-label={t.chat.asTokens} tabIndex={0} onKeyDown={onKey}>
        {tokens.map((one, i) => (
          <span
            key={i}
            className={i === at ? "rounded-[2px] outline-2 outline-accent" : ""}
            style={{ background: `color-mix(in srgb, var(--warn) ${Math.round((1 - one.p) * 45)}%, transparent)` }}
            onPointerEnter={() => setAt(i)}
            onClick={() => setAt(i)}
          >
            {one.text}
          </span>
        ))}
      </div>
      <p role="status" className="mt-1 flex min-h-5 flex-wrap gap-x-3 font-mono text-xs text-soft">
        {token ? (
          <>
            <b className="text-ink">
              {shown(token)} {share(token.p)}
            </b>
            {token.others
              .filter((other) => shown(other) !== shown(token))
              .map((other) => (
                <span key={shown(other)}>
                  {shown(other)} {share(other.p)}
                </span>
              ))}
          </>
        ) : (
          t.chat.tokensHint
        )}
      </p>
    </div>
  );
}

const shown = ({ text, bytes }: Likely) => (bytes ? `"${bytes}"` : JSON.stringify(text));

function share(p: number): string {
  const percent = p * 100;
  return `${percent >= 10 ? percent.toFixed(0) : percent >= 0.1 ? percent.toFixed(1) : "<0.1"} %`;
}
