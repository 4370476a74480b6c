/** The shape of a run's loss in the height of a line. */
import { useQuery } from "@tanstack/react-query";
import { getMetrics } from "../../api/queries";
import type { Run } from "../../api/types";
import { isLive } from "../../api/types";
import { mainMetric } from "../../lib/runs";
import { t } from "../../texts";

const [WIDTH, HEIGHT, POINTS] = [72, 20, 40];
const LIVE_MS = 10_000;
const PASSED_MS = 150;

export function Sparkline({ run }: { run: Run }) {
  const key = mainMetric(Object.keys(run.summary));
  const live = isLive(run.state);
  const { data } = useQuery({
    queryKey: ["spark", run.id, live],
    enabled: key !== undefined,
    staleTime: live ? LIVE_MS : Infinity,
    refetchInterval: live ? LIVE_MS : false,
    queryFn: async ({ signal }) => {
      // a row that is only scrolled past asks for nothing
      await new Promise((resolve) => setTimeout(resolve, PASSED_MS));
      signal.throwIfAborted();
      return (await getMetrics(run.id, { keys: key as string, max_points: POINTS })).series[0] ?? null;
    },
  });
  const points = data ? path(data.x, data.y) : "";
  return (
    <svg role="img" aria-label={t.runs.spark} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} className="h-5 w-18 text-accent" preserveAspectRatio="none">
      {points && <polyline points={points} fill="none" stroke="currentColor" strokeWidth="1.2" vectorEffect="non-scaling-stroke" />}
    </svg>
  );
}

function path(x: readonly number[], y: readonly (number | null)[]): string {
  const known = y.filter((value) => value !== null);
  if (known.length < 2) return "";
  const [low, high, first, last] = [Math.min(...known), Math.max(...known), x[0] as number, x.at(-1) as number];
  return y
    .flatMap((value, i) => {
      if (value === null) return [];
      const left = (((x[i] as number) - first) / (last - first || 1)) * WIDTH;
      return [`${left.toFixed(1)},${(1 + (1 - (value - low) / (high - low || 1)) * (HEIGHT - 2)).toFixed(1)}`];
    })
    .join(" ");
}
