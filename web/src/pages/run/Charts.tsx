/** A run's metrics: the loss large, raw and smoothed, with the validation curve; the others small. */
import { useMemo, useState } from "react";
import type { Series } from "../../api/types";
import type { RunFeed } from "../../live/runFeed";
import { mainMetric } from "../../lib/runs";
import { decay, smooth } from "../../lib/smooth";
import { t } from "../../texts";
import { Chart, type Line } from "../../ui/Chart";
import { Card, Empty, LiveDot } from "../../ui/basics";

type Props = { feed: RunFeed; ended: boolean; height: number };

const SMALL_FIRST = ["val/bpb", "train/grad_norm", "train/lrm", "train/tok_per_sec"];
/** Grows with every step, so a curve of it says nothing. */
const NOT_DRAWN = ["train/tokens"];

/** How smooth the curve starts out, 0…1. */
const STRENGTH = 0.6;

const title = (key: string) => t.metric[key] ?? key;

export function LossChart({ feed, ended, height, log = false, strength = STRENGTH }: Props & { log?: boolean; strength?: number }) {
  const key = mainMetric(feed.metrics.series.keys());
  const series = key === undefined ? undefined : feed.metrics.series.get(key);
  const version = feed.metrics.version;
  const { x, lines } = useMemo(
    () => ({ x: [...(series?.x ?? [])], lines: lossLines(series, strength) }),
    // `series` is changed in place; `version` tells when
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [series, version, strength],
  );
  if (!series || series.x.length === 0) return <Empty>{ended ? t.run.noMetricsEver : t.run.noMetrics}</Empty>;
  return <Chart x={x} lines={lines} height={height} log={log} label={title(series.key)} />;
}

function lossLines(series: Series | undefined, strength: number): Line[] {
  if (!series) return [];
  if (strength === 0) return [{ label: t.run.raw, y: [...series.y], colour: "--series" }];
  return [
    { label: t.run.raw, y: [...series.y], colour: "--series-raw", width: 1 },
    { label: t.run.smoothed, y: smooth(series.y, decay(strength, series.y.length)), colour: "--series", width: 2 },
  ];
}

export function Charts({ feed, ended }: { feed: RunFeed; ended: boolean }) {
  const [log, setLog] = useState(false);
  const [strength, setStrength] = useState(STRENGTH);
  const all = [...feed.metrics.series.values()];
  const main = mainMetric(all.map(({ key }) => key));
  const others = all.filter(({ key, x }) => key !== main && x.length > 1 && !NOT_DRAWN.includes(key)).sort(bySmallFirst);
  const tools = (
    <>
      <label className="flex items-center gap-1.5 text-soft">
        <input type="checkbox" checked={log} onChange={(event) => setLog(event.target.checked)} />
        {t.run.logScale}
      </label>
      <label className="flex items-center gap-1.5 text-soft">
        {t.run.smoothing}
        <input
          type="range"
          min={0}
          max={1}
          step={0.05}
          value={strength}
          onChange={(event) => setStrength(Number(event.target.value))}
          className="w-24 accent-(--accent)"
        />
      </label>
      {!ended && <LiveDot status={feed.status} />}
    </>
  );
  return (
    <>
      <Card title={main ? title(main) : t.run.charts} tools={main ? tools : undefined} className="pb-2">
        {feed.loaded ? <LossChart feed={feed} ended={ended} height={280} log={log} strength={strength} /> : <Empty>{t.app.loading}</Empty>}
      </Card>
      {others.length > 0 && (
        <div className="grid grid-cols-2 gap-2 sm:gap-4 xl:grid-cols-4">
          {others.map((series) => (
            <SmallChart key={series.key} series={series} version={feed.metrics.version} />
          ))}
        </div>
      )}
    </>
  );
}

function bySmallFirst(a: Series, b: Series): number {
  const rank = ({ key }: Series) => (SMALL_FIRST.includes(key) ? SMALL_FIRST.indexOf(key) : SMALL_FIRST.length);
  return rank(a) - rank(b) || a.key.localeCompare(b.key);
}

function SmallChart({ series, version }: { series: Series; version: number }) {
  const { x, lines } = useMemo(
    () => ({
      x: [...series.x],
      lines: [{ label: title(series.key), y: [...series.y], colour: series.key.startsWith("val/") ? "--series-2" : "--series", width: 1.5, points: series.x.length < 30 }],
    }),
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [series, version],
  );
  return (
    <Card className="py-1">
      <Chart x={x} lines={lines} height={130} label={title(series.key)} />
    </Card>
  );
}
