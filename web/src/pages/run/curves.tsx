/** One series as a chart: the loss raw and smoothed, everything else as it is. */
import { useMemo } from "react";
import type { Series } from "../../api/types";
import type { Scale } from "../../lib/axis";
import { mainMetric } from "../../lib/runs";
import { decay, smooth } from "../../lib/smooth";
import type { RunFeed } from "../../live/runFeed";
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

type LossProps = { series: Series | undefined; ended: boolean; height: number; view?: View; strength?: number };

export function LossChart({ series, ended, height, view, strength = STRENGTH }: LossProps) {
  const scale = view?.scale;
  const { x, lines } = useMemo(() => ({ x: placed(series, scale), lines: lossLines(series, strength) }), [series, scale, strength]);
  if (!series || series.x.length === 0) return <Empty>{ended ? t.run.noMetricsEver : t.run.noMetrics}</Empty>;
  return <Chart x={x} lines={lines} height={height} label={title(series.key)} {...view} />;
}

/** The loss of a run that is followed elsewhere. */
export function LiveLoss({ feed, ended, height }: { feed: RunFeed; ended: boolean; height: number }) {
  const key = mainMetric(feed.metrics.series.keys());
  const found = key === undefined ? undefined : feed.metrics.series.get(key);
  const { version } = feed.metrics;
  // `found` is changed in place; `version` tells when
  // eslint-disable-next-line react-hooks/exhaustive-deps
  const series = useMemo(() => found && { key: found.key, x: [...found.x], y: [...found.y] }, [found, version]);
  if (!feed.loaded) return <Empty>{t.app.loading}</Empty>;
  return <LossChart series={series} ended={ended} height={height} />;
}

function lossLines(series: Series | undefined, strength: number): Line[] {
  if (!series) return [];
  if (strength === 0) return [{ label: t.run.raw, y: series.y, colour: "--series" }];
  return [
    { label: t.run.raw, y: series.y, colour: "--series-raw", width: 1 },
    { label: t.run.smoothed, y: smooth(series.y, decay(strength, series.y.length)), colour: "--series", width: 2 },
  ];
}

const placed = (series: Series | undefined, scale: Scale | undefined): number[] => (series?.x ?? []).map((step) => scale?.place(step) ?? step);

export function SmallChart({ series, view }: { series: Series; view: View }) {
  const { scale } = view;
  const { x, lines } = useMemo(() => {
    const colour = series.key.startsWith("val/") ? "--series-2" : "--series";
    return { x: placed(series, scale), lines: [{ label: title(series.key), y: series.y, colour, width: 1.5, points: series.x.length < 30 }] };
  }, [series, scale]);
  return (
    <Card className="py-1">
      <Chart x={x} lines={lines} height={130} label={title(series.key)} {...view} log={false} marks={NONE} />
    </Card>
  );
}

/** Small charts have no room for signs; the large one has them. */
const NONE: readonly Mark[] = [];
