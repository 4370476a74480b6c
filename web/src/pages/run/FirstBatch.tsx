/** What the run read first, token by token: what the loss is taken of is marked, the rest is dim. */
import { useState } from "react";
import { useFirstBatch, useRun } from "../../api/queries";
import type { BatchRow, BatchToken, Run, RunRecord } from "../../api/types";
import { runsOfTokens, visible } from "../../lib/tokens";
import { count, number } from "../../lib/format";
import { t } from "../../texts";
import { Card } from "../../ui/basics";

/** Stages whose trainers tell it, right before their first step. */
const TELLING = ["base", "mid", "sft", "rl"];

const hasStepped = (run: Run) => (run.step ?? 0) > 0;

export function FirstBatchCard({ run }: { run: RunRecord }) {
  const stepped = useRun(run.id, hasStepped).data ?? false;
  const batch = useFirstBatch(run, TELLING.includes(run.stage) && stepped).data;
  const [chosen, setChosen] = useState(0);
  const row = batch?.rows[chosen] ?? batch?.rows[0];
  if (!batch || !row) return null;
  const picker = batch.rows.length > 1 && (
    <label className="flex items-center gap-2 text-soft">
      {t.batch.row}
      <select className="field text-ink" value={chosen} onChange={(event) => setChosen(Number(event.target.value))}>
        {batch.rows.map((_, index) => (
          <option key={index} value={index}>
            {index + 1}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <Card title={t.batch.title} tools={picker}>
      <div className="flex flex-col gap-2 px-4 py-3">
        <p className="text-soft">{t.batch.hint(count(batch.step), count(batch.rows.length), count(batch.size))}</p>
        <Legend row={row} />
        <Tokens row={row} label={`${t.batch.title}, ${t.batch.row} ${chosen + 1}`} />
      </div>
    </Card>
  );
}

const MARKED = "border-b-2 border-accent bg-transparent text-ink";
const CHIP = "rounded border border-line bg-well px-1 text-xs";

function Legend({ row }: { row: BatchRow }) {
  return (
    <p className="flex flex-wrap items-center gap-x-5 gap-y-1 text-xs">
      <span className={MARKED}>{t.batch.counts}</span>
      <span className="text-soft">{t.batch.dim}</span>
      <span className={CHIP}>{t.batch.special}</span>
      {row.reward != null && <span>{t.batch.reward(number(row.reward))}</span>}
      {row.advantage != null && <span>{t.batch.advantage(number(row.advantage))}</span>}
    </p>
  );
}

function Tokens({ row, label }: { row: BatchRow; label: string }) {
  const shown = row.tokens.reduce((total, token) => total + token.ids.length, 0);
  return (
    <div tabIndex={0} role="region" aria-label={label} className="max-h-80 overflow-auto rounded-md bg-well/50 px-3 py-2 font-mono text-xs leading-6 break-words whitespace-pre-wrap">
      {runsOfTokens(row.tokens).map(({ counts, tokens }, place) =>
        counts ? (
          <mark key={place} className="bg-transparent text-inherit">
            <span className="sr-only">{t.batch.spokenStart}</span>
            {tokens.map((token, index) => (
              <Token key={index} token={token} />
            ))}
            <span className="sr-only">{t.batch.spokenEnd}</span>
          </mark>
        ) : (
          <span key={place} className="text-soft">
            {tokens.map((token, index) => (
              <Token key={index} token={token} />
            ))}
          </span>
        ),
      )}
      {row.length > shown && <span className="text-soft"> {t.batch.more(count(row.length - shown))}</span>}
    </div>
  );
}

function Token({ token }: { token: BatchToken }) {
  const looks = `${token.special ? CHIP : ""} ${token.counts ? MARKED : ""}`;
  return (
    <span title={t.batch.token(token.ids.join(" "))} className={`mx-px ${looks}`}>
      {token.special ? token.text : visible(token.text)}
    </span>
  );
}
