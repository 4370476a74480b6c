/** The runs of a pipeline side by side: where it is, at a glance. */
import type { Run } from "../../api/types";
import { hasEnded, isLive } from "../../api/types";
import { duration, number, percent, seconds } from "../../lib/format";
import { latestLoss, lossName, progress } from "../../lib/runs";
import { Link } from "../../router";
import { t } from "../../texts";
import { Bar, StateBadge } from "../../ui/basics";
import { useNow } from "../../ui/useNow";

const TONES: Partial<Record<Run["state"], string>> = { succeeded: "bg-good", failed: "bg-bad", cancelled: "bg-soft" };

/** More steps than this do not fit side by side with their names. */
const ONE_ROW = 5;

export function StepStrip({ runs, quiet = false }: { runs: Run[]; quiet?: boolean }) {
  return (
    <ol aria-label={t.pipeline.progress} className={`grid gap-x-1 p-2 ${runs.length > ONE_ROW ? "sm:grid-cols-3 lg:grid-cols-5" : "sm:auto-cols-fr sm:grid-flow-col"}`}>
      {runs.map((run) => (
        <li key={run.id} className="min-w-0">
          <Step run={run} quiet={quiet} />
        </li>
      ))}
    </ol>
  );
}

function Step({ run, quiet }: { run: Run; quiet: boolean }) {
  const now = useNow(isLive(run.state) ? 1000 : null);
  const share = progress(run);
  const loss = latestLoss(run);
  const took = seconds(run.started_at, run.ended_at, now);
  const stage = t.pipeline.stage[run.stage] ?? run.stage;
  return (
    <Link to={`/runs/${run.id}`} className="block rounded-md px-2 py-2 hover:bg-well">
      <div className="flex items-baseline justify-between gap-2">
        <span className="truncate font-medium">{stage}</span>
        <StateBadge state={run.state} />
      </div>
      <Bar share={share} label={stage} tone={TONES[run.state] ?? "bg-accent"} className="my-1.5" />
      {!quiet && (
        <div className="flex justify-between gap-2 text-xs text-soft">
          <span className="truncate">
            {loss !== undefined ? `${lossName(run).toLowerCase()} ${number(loss)}` : isLive(run.state) && share !== null ? percent(share) : " "}
          </span>
          <span>{took !== null && (isLive(run.state) || hasEnded(run.state)) ? duration(took) : ""}</span>
        </div>
      )}
    </Link>
  );
}
