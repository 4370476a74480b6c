/** The steps of a pipeline as a graph: what starts from what, and where it is, at a glance. */
import { type ReactNode, useMemo } from "react";
import type { Run } from "../../api/types";
import { hasEnded, isLive } from "../../api/types";
import { duration, number, percent, seconds } from "../../lib/format";
import { type Layout, layout } from "../../lib/graph";
import { latestLoss, lossName, progress } from "../../lib/runs";
import { Link } from "../../router";
import { t } from "../../texts";
import { Bar, StateBadge } from "../../ui/basics";
import { useMedia } from "../../ui/useMedia";
import { useNow } from "../../ui/useNow";

const TONES: Partial<Record<Run["state"], string>> = { succeeded: "bg-good", failed: "bg-bad", cancelled: "bg-soft" };

/** A step's name and state need so much; with less, the steps are a list. */
const STEP_PX = 185;

export function StepStrip({ runs, quiet = false }: { runs: Run[]; quiet?: boolean }) {
  const names = new Map(runs.map((run) => [run.id, stageOf(run)]));
  return <StepGraph steps={runs}>{(run) => <Step run={run} quiet={quiet} after={names.get(run.parent ?? "")} />}</StepGraph>;
}

/** Steps where they stand: with room for it each below and after what it starts from, else a list. */
export function StepGraph<S extends { id: string; parent?: string | null }>({ steps, children }: { steps: readonly S[]; children: (step: S) => ReactNode }) {
  // only what starts from what decides on the places
  const shape = steps.map(({ id, parent }) => `${id}<${parent ?? ""}`).join();
  // eslint-disable-next-line react-hooks/exhaustive-deps
  const graph = useMemo(() => layout(steps), [shape]);
  const wide = useMedia(`(min-width: ${graph.columns * STEP_PX}px)`);
  const place = (id: string) => {
    const { column, row } = graph.places.get(id) ?? { column: 0, row: 0 };
    return { gridColumn: column + 1, gridRow: row + 1 };
  };
  return (
    <div className="relative p-2">
      {wide && <Edges graph={graph} />}
      <ol
        aria-label={t.pipeline.progress}
        className={`relative ${wide ? "grid auto-rows-fr" : "flex flex-col gap-1"}`}
        style={wide ? { gridTemplateColumns: `repeat(${graph.columns}, minmax(0, 1fr))` } : undefined}
      >
        {steps.map((step) => (
          <li key={step.id} className={wide ? "mx-2.5 my-1.5 min-w-0 rounded-md border border-line bg-card" : "min-w-0"} style={wide ? place(step.id) : undefined}>
            {children(step)}
          </li>
        ))}
      </ol>
    </div>
  );
}

/** From the middle of a step to the middle of the next; what the steps cover is not seen. */
function Edges({ graph: { places, edges, columns, rows } }: { graph: Layout }) {
  return (
    <svg aria-hidden viewBox={`0 0 ${columns} ${rows}`} preserveAspectRatio="none" className="absolute inset-2 h-[calc(100%-1rem)] w-[calc(100%-1rem)] text-soft">
      {edges.map(([from, to]) => {
        const [a, b] = [places.get(from), places.get(to)];
        return a && b && <path key={to} d={`M${a.column + 0.5} ${a.row + 0.5}H${a.column + 1}V${b.row + 0.5}H${b.column + 0.5}`} fill="none" stroke="currentColor" strokeWidth="1.5" vectorEffect="non-scaling-stroke" />;
      })}
    </svg>
  );
}

const stageOf = (run: Run): string => t.pipeline.stage[run.stage] ?? run.stage;

/** `after`: what it starts from. */
function Step({ run, quiet, after }: { run: Run; quiet: boolean; after: string | undefined }) {
  const now = useNow(isLive(run.state) ? 1000 : null);
  const share = progress(run);
  const loss = latestLoss(run);
  const took = seconds(run.started_at, run.ended_at, now);
  const stage = stageOf(run);
  return (
    <Link to={`/runs/${run.id}`} className="block rounded-md px-2 py-2 hover:bg-well">
      <div className="flex items-baseline justify-between gap-2">
        <span className="truncate font-medium">
          {stage}
          {after && <span className="sr-only"> ({t.pipeline.startsFrom(after)})</span>}
        </span>
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
