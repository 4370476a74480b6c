/** What a run leaves behind: attempts, evaluations, samples. */
import { useState } from "react";
import { useAttempts, useEvaluations, useSamples } from "../../api/queries";
import type { Attempt, RunRecord } from "../../api/types";
import { isLive } from "../../api/types";
import { count, duration, moment, number, seconds } from "../../lib/format";
import { plain } from "../../lib/ansi";
import { t } from "../../texts";
import { Card, StateBadge } from "../../ui/basics";
import { useNow } from "../../ui/useNow";
import { Scores } from "../pipeline/Scores";

const CELLS = "[&>td]:px-4 [&>td]:py-1.5 [&>th]:px-4 [&>th]:py-1.5 [&>th]:font-medium border-b border-line last:border-0";

/** Exit code, signal and reason on one line. */
export function outcome(item: Pick<Attempt, "reason" | "exit_code" | "signal" | "message">): string {
  const parts = [
    item.message ?? (item.reason ? t.reason[item.reason] : null),
    item.exit_code ? t.run.exit(item.exit_code) : null,
    item.signal ? t.run.signal(item.signal) : null,
  ];
  return parts.filter(Boolean).join(", ");
}

export function FailureCard({ run }: { run: RunRecord }) {
  const attempts = useAttempts(run.id);
  if (run.state !== "failed") return null;
  const tail = attempts.data?.items.at(-1)?.tail ?? [];
  return (
    <section role="alert" className="rounded-lg border border-bad/50 bg-card">
      <div className="px-4 py-3">
        <h2 className="text-bad">{run.reason ? t.reason[run.reason] : t.state.failed}</h2>
        {run.message && <p className="break-words">{run.message}</p>}
        <p className="text-xs text-soft">
          {[run.reason, run.exit_code != null && t.run.exit(run.exit_code), run.signal != null && t.run.signal(run.signal)].filter(Boolean).join(" · ")}
        </p>
      </div>
      {tail.length > 0 && (
        <details open className="border-t border-line">
          <summary className="px-4 py-2 text-soft">{t.run.lastLines}</summary>
          <pre tabIndex={0} className="max-h-72 overflow-auto px-4 pb-3 font-mono text-xs">
            {tail.map(plain).join("\n")}
          </pre>
        </details>
      )}
    </section>
  );
}

export function AttemptsCard({ run }: { run: RunRecord }) {
  const attempts = useAttempts(run.id).data?.items ?? [];
  const now = useNow(isLive(run.state) ? 1000 : null);
  if (attempts.length === 0) return null;
  return (
    <Card title={t.run.attempts}>
      <div className="overflow-x-auto">
        <table className="w-full text-left">
          <tbody>
            {attempts.map((attempt) => (
              <tr key={attempt.number} className={CELLS}>
                <th scope="row">{attempt.number}</th>
                <td>
                  <StateBadge state={attempt.state} />
                </td>
                <td className="w-full min-w-40">{outcome(attempt)}</td>
                <td className="text-right whitespace-nowrap text-soft" title={moment(attempt.started_at)}>
                  {duration(seconds(attempt.started_at, attempt.ended_at, now))}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

export function EvaluationsCard({ run }: { run: RunRecord }) {
  const evaluations = useEvaluations({ run: run.id }).data?.items ?? [];
  const others = evaluations.filter(({ name }) => !name.startsWith("chat_eval"));
  return (
    <>
      <Scores evaluations={evaluations} />
      {others.length > 0 && (
        <Card title={t.run.evaluations}>
          <table className="w-full text-left">
            <tbody>
              {others.map((evaluation) => (
                <tr key={`${evaluation.name} ${evaluation.step}`} className={CELLS}>
                  <th scope="row">{evaluation.name}</th>
                  <td className="text-soft">{evaluation.step === null ? "" : `${t.run.step.toLowerCase()} ${count(evaluation.step)}`}</td>
                  <td>
                    {Object.entries(evaluation.values)
                      .map(([key, score]) => `${key} ${number(score)}`)
                      .join(", ")}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Card>
      )}
    </>
  );
}

export function SamplesCard({ run }: { run: RunRecord }) {
  const samples = useSamples(run.id, isLive(run.state)).data ?? [];
  const steps = [...new Set(samples.map(({ step }) => step))].sort((a, b) => b - a);
  const [chosen, setChosen] = useState<number | null>(null);
  const step = chosen ?? steps[0];
  if (samples.length === 0) return null;
  const picker = steps.length > 1 && (
    <label className="flex items-center gap-2 text-soft">
      {t.run.step}
      <select className="field text-ink" value={step} onChange={(event) => setChosen(Number(event.target.value))}>
        {steps.map((item) => (
          <option key={item} value={item}>
            {count(item)}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <Card title={t.run.samples} tools={picker}>
      <ul className="divide-y divide-line">
        {samples
          .filter((sample) => sample.step === step)
          .map((sample, index) => (
            <li key={index} className="px-4 py-2 break-words whitespace-pre-wrap">
              <span className="text-soft">{sample.prompt}</span>
              {sample.text.startsWith(sample.prompt) ? sample.text.slice(sample.prompt.length) : sample.text}
            </li>
          ))}
      </ul>
    </Card>
  );
}
