/** The same metric of several runs in one chart, one chart for each metric that at least one of them has. */
import { useQueries } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import uPlot from "uplot";
import { getMetrics } from "../../api/queries";
import type { Metrics, Run, Series } from "../../api/types";
import { hasEnded } from "../../api/types";
import { compact, duration, short } from "../../lib/format";
import { mainMetric } from "../../lib/runs";
import { decay, smooth } from "../../lib/smooth";
import { t } from "../../texts";
import { Card } from "../../ui/basics";
import { Chart, type Line, type Range } from "../../ui/Chart";
import { CurveTools } from "../../ui/CurveTools";
import { STRENGTH, title } from "../run/curves";
import { COLOURS } from "./colours";

type X = Metrics["x"];
const AXES: readonly X[] = ["step", "tokens", "time"];
const TICKS: Record<X, (x: number) => string> = { step: short, tokens: compact, time: duration };
const LIVE_MS = 5000;
const NOT_DRAWN = ["train/tokens", "train/opt_ms", "train/skipped"];

export function Overlay({ runs }: { runs: readonly Run[] }) {
  const [x, setX] = useState<X>("step");
  const [log, setLog] = useState(false);
  const [strength, setStrength] = useState(STRENGTH);
  const [range, choose] = useState<Range | null>(null);
  const answers = useQueries({
    queries: runs.map((run) => ({
      queryKey: ["compare", run.id, x],
      queryFn: () => getMetrics(run.id, { x }),
      refetchInterval: hasEnded(run.state) ? (false as const) : LIVE_MS,
      staleTime: hasEnded(run.state) ? Infinity : LIVE_MS,
    })),
  });
  const all = answers.map(({ data }) => data?.series ?? []);
  // a single point is no curve: the table of results has it
  const curves = all.flat().filter(({ key, x: places }) => places.length > 1 && !NOT_DRAWN.includes(key));
  const keys = [...new Set(curves.map(({ key }) => key))];
  const main = mainMetric(keys);
  const pick = (key: string) => all.map((series) => series.find((one) => one.key === key));
  const shared = { log, zoom: { range, choose }, tick: TICKS[x], place: (at: number) => t.run.at[x](TICKS[x](at)), sync: "compare" };
  return (
    <Card
      title={t.run.charts}
      tools={
        <CurveTools
          axes={AXES}
          axis={x}
          onAxis={(axis) => {
            choose(null); // a part of one axis is no part of another
            setX(axis);
          }}
          log={log}
          onLog={setLog}
          strength={strength}
          onStrength={setStrength}
        />
      }
    >
      <div className="grid gap-x-2 gap-y-4 py-3 md:grid-cols-2">
        {keys
          .toSorted((a, b) => Number(b === main) - Number(a === main) || a.localeCompare(b))
          .map((key) => (
            <section key={key} className={key === main ? "min-w-0 md:col-span-2" : "min-w-0"}>
              <h3 className="px-4 font-medium">{title(key)}</h3>
              <Curves series={pick(key)} runs={runs} label={title(key)} strength={key === main ? strength : 0} height={key === main ? 300 : 170} {...shared} />
            </section>
          ))}
      </div>
    </Card>
  );
}

type CurvesProps = { series: (Series | undefined)[]; runs: readonly Run[]; strength: number } & Omit<Parameters<typeof Chart>[0], "x" | "lines">;

function Curves({ series, runs, strength, ...rest }: CurvesProps) {
  // series are new with every answer: their ends say whether anything in them is
  const stamp = series.map((one) => `${one?.x.length} ${one?.x.at(-1)} ${one?.y.at(-1)}`).join("|");
  const { x, lines } = useMemo(
    () => joined(series, runs, strength),
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [stamp, strength, runs.map(({ id }) => id).join()],
  );
  return <Chart x={x} lines={lines} {...rest} />;
}

/** Runs are measured at places of their own: one x axis with all of them, gaps where a run has none. */
function joined(series: readonly (Series | undefined)[], runs: readonly Run[], strength: number): { x: readonly number[]; lines: Line[] } {
  const have = series.flatMap((one, i) => (one && one.x.length > 0 ? [{ one, i }] : []));
  if (have.length === 0) return { x: [], lines: [] };
  const tables = have.map(({ one }) => [one.x, strength ? smooth(one.y, decay(strength, one.y.length)) : one.y] as uPlot.AlignedData);
  const [x, ...ys] = uPlot.join(tables);
  const lines = have.map(({ one, i }, place) => ({
    label: runs[i]?.name ?? "",
    y: ys[place] as (number | null)[],
    colour: COLOURS[i] as string,
    width: 1.75,
    points: one.x.length < 30,
  }));
  return { x: x as number[], lines };
}
