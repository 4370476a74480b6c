/** Runs as a table; on a phone, as a list of short cards. */
import type { Run } from "../../api/types";
import { hasEnded } from "../../api/types";
import { ago, compact, moment, number } from "../../lib/format";
import { latestLoss, progress, steps } from "../../lib/runs";
import { Link } from "../../router";
import { t } from "../../texts";
import { Bar, StateBadge } from "../../ui/basics";

export function RunRows({ runs }: { runs: readonly Run[] }) {
  return (
    <>
      <table className="hidden w-full table-fixed text-left md:table">
        <thead className="text-xs text-soft">
          <tr className="border-b border-line [&>th]:px-3 [&>th]:py-2 [&>th]:font-medium">
            <th scope="col" className="w-32">{t.runs.state}</th>
            <th scope="col">{t.runs.name}</th>
            <th scope="col" className="w-28">{t.runs.stage}</th>
            <th scope="col" className="hidden w-40 lg:table-cell">{t.runs.preset}</th>
            <th scope="col" className="w-20 text-right">{t.runs.loss}</th>
            <th scope="col" className="w-44">{t.runs.progress}</th>
            <th scope="col" className="w-20 text-right">{t.runs.speed}</th>
            <th scope="col" className="w-28 text-right">{t.runs.created}</th>
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <tr key={run.id} className="border-b border-line last:border-0 hover:bg-well/60 [&>td]:px-3 [&>td]:py-2 [&>td]:align-top">
              <td>
                <StateBadge state={run.state} />
              </td>
              <td>
                <RunName run={run} />
                <Why run={run} />
              </td>
              <td className="truncate">{run.stage}</td>
              <td className="hidden truncate text-soft lg:table-cell">{run.preset ?? "–"}</td>
              <td className="text-right">{number(latestLoss(run))}</td>
              <td>
                <Steps run={run} />
              </td>
              <td className="text-right">{compact(run.summary["train/tok_per_sec"])}</td>
              <td className="text-right whitespace-nowrap text-soft" title={moment(run.created_at)}>
                {ago(run.created_at)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <ul className="divide-y divide-line md:hidden">
        {runs.map((run) => (
          <li key={run.id} className="flex flex-col gap-1 px-4 py-2.5">
            <div className="flex items-baseline justify-between gap-3">
              <RunName run={run} />
              <StateBadge state={run.state} />
            </div>
            <div className="flex justify-between gap-3 text-xs text-soft">
              <span className="truncate">
                {[run.stage, run.preset].filter(Boolean).join(" · ")}
                {latestLoss(run) !== undefined && ` · ${t.runs.loss.toLowerCase()} ${number(latestLoss(run))}`}
              </span>
              <span className="whitespace-nowrap">{ago(run.created_at)}</span>
            </div>
            <Steps run={run} />
            <Why run={run} />
          </li>
        ))}
      </ul>
    </>
  );
}

function RunName({ run }: { run: Run }) {
  return (
    <Link to={`/runs/${run.id}`} className="block min-w-0 truncate font-medium text-accent underline-offset-2 hover:underline">
      {run.name}
    </Link>
  );
}

function Steps({ run }: { run: Run }) {
  const share = progress(run);
  if (run.step == null && share === null) return null;
  const tone = run.state === "failed" ? "bg-bad" : run.state === "succeeded" ? "bg-good" : hasEnded(run.state) ? "bg-soft" : "bg-accent";
  return (
    <div className="flex items-center gap-2">
      <Bar share={share} label={t.runs.progress} tone={tone} className="min-w-12 flex-1" />
      {run.step != null && <span className="text-xs whitespace-nowrap text-soft">{steps(run)}</span>}
    </div>
  );
}

/** Why it waits or how it failed, on a line of its own. */
function Why({ run }: { run: Run }) {
  if (run.blocked) {
    const hint = run.blocked.preset && !run.blocked.message.includes(run.blocked.preset) ? ` ${t.runs.tryPreset(run.blocked.preset)}` : "";
    return <p className="text-xs break-words text-warn">{run.blocked.message + hint}</p>;
  }
  if (run.state !== "failed" || !run.reason) return null;
  return <p className="text-xs break-words text-bad">{run.message ?? t.reason[run.reason]}</p>;
}
