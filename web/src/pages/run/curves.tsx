/** One series as a chart: the loss raw and smoothed, everything else as it is. */
import { useMemo } from "react";
import type { Scale } from "../../lib/axis";
import { type Curve, fill } from "../../lib/curve";
import { mainMetric } from "../../lib/runs";
import { decay, smooth } from "../../lib/smooth";
import type { RunFeed } from "../../live/runFeed";
import { MOST_POINTS } from "../../live/seriesStore";
import { t } from "../../texts";
import { Card, Empty } from "../../ui/basics";
import { Chart, type Line, type Zoom } from "../../ui/Chart";
import type { Mark } from "../../ui/marks";

/** What the charts of a page share. */
export type View = {
  scale: Scale;
  zoom: Zoom;
  log: boolean;
  marks: readonly Mark[];
  sync: string;
  tick: (x: number) => string;
  place: (x: number) => string;
};

/** How smooth the curve starts out, 0…1. */
export const STRENGTH = 0.6;

export const title = (key: string): string => t.metric[key] ?? key;

/** What a chart draws besides a curve itself stands where it stood before: the page of a run takes no more memory with
 *  every point. */
const useRoom = (wanted: boolean) => useMemo(() => (wanted ? new Float64Array(MOST_POINTS) : undefined), [wanted]);
const isMoved = (scale: Scale | undefined): scale is Scale => scale !== undefined && scale.axis !== "step";

type LossProps = { series: Curve | undefined; ended: boolean; height: number; view?: View; strength?: number };

export function LossChart({ series, ended, height, view, strength = STRENGTH }: LossProps) {
  const scale = view?.scale;
  const places = useRoom(isMoved(scale));
  const behind = useRoom(strength > 0);
  const { x, lines } = useMemo(
    () => ({ x: placed(series, scale, places), lines: lossLines(series, strength, behind) }),
    [series, scale, strength, places, behind],
  );
  if (!series || series.x.length === 0) return <Empty>{ended ? t.run.noMetricsEver : t.run.noMetrics}</Empty>;
  return <Chart x={x} lines={lines} height={height} label={title(series.key)} {...view} />;
}

/** The loss of a run that is followed elsewhere. */
export function LiveLoss({ feed, ended, height }: { feed: RunFeed; ended: boolean; height: number }) {
  const key = mainMetric(feed.metrics.series.keys());
  const series = key === undefined ? undefined : feed.metrics.series.get(key);
  if (!feed.loaded) return <Empty>{t.app.loading}</Empty>;
  return <LossChart series={series} ended={ended} height={height} />;
}

function lossLines(series: Curve | undefined, strength: number, room: Float64Array | undefined): Line[] {
  if (!series) return [];
  if (strength === 0) return [{ label: t.run.raw, y: series.y, colour: "--series" }];
  return [
    { label: t.run.raw, y: series.y, colour: "--series-raw", width: 1 },
    { label: t.run.smoothed, y: smooth(series.y, decay(strength, series.y.length), room), colour: "--series", width: 2 },
  ];
}

const NOWHERE = new Float64Array();

function placed(series: Curve | undefined, scale: Scale | undefined, room: Float64Array | undefined): Float64Array {
  if (!series) return NOWHERE;
  if (!isMoved(scale)) return series.x;
  const places = fill(room, series.x.length);
  series.x.forEach((step, i) => (places[i] = scale.place(step)));
  return places;
}

export function SmallChart({ series, view }: { series: Curve; view: View }) {
  const { scale } = view;
  const places = useRoom(isMoved(scale));
  const { x, lines } = useMemo(() => {
    const colour = series.key.startsWith("val/") ? "--series-2" : "--series";
    return { x: placed(series, scale, places), lines: [{ label: title(series.key), y: series.y, colour, width: 1.5, points: series.x.length < 30 }] };
  }, [series, scale, places]);
  return (
    <Card className="py-1">
      <Chart x={x} lines={lines} height={130} label={title(series.key)} {...view} log={false} marks={NONE} />
    </Card>
  );
}

/** Small charts have no room for signs; the large one has them. */
const NONE: readonly Mark[] = [];
