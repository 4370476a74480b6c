/** A run's metrics: the loss large, raw and smoothed, the others small; one x axis, one crosshair, one zoom. */
import { useEffect, useMemo, useState } from "react";
import { useCheckpoints, useDetail, useEvaluations, useFlopsPerToken, useResumes, useTimes } from "../../api/queries";
import type { RunRecord } from "../../api/types";
import { hasEnded } from "../../api/types";
import { AXES, type Axis, type Scale, scaleOf } from "../../lib/axis";
import { type Curve, measured } from "../../lib/curve";
import { withDetail } from "../../lib/detail";
import { compact, count, duration, short } from "../../lib/format";
import { mainMetric } from "../../lib/runs";
import type { RunFeed } from "../../live/runFeed";
import { t } from "../../texts";
import { Button, Card, LiveDot } from "../../ui/basics";
import type { Range, Zoom } from "../../ui/Chart";
import { CurveTools } from "../../ui/CurveTools";
import { glyph, type Mark, markColour, type MarkKind } from "../../ui/marks";
import { LossChart, SmallChart, STRENGTH, title, type View } from "./curves";

const SMALL_FIRST = ["val/bpb", "val/loss", "core/metric", "train/grad_norm", "train/lrm", "train/tok_per_sec", "train/mfu", "mem/peak_bytes"];
/** Grows with every step, so a curve of it says nothing. */
const NOT_DRAWN = ["train/tokens"];
const TOKENS = "train/tokens";
/** A drawn part with fewer points a step than this is asked for again. */
const FINE = 0.9;

export function Charts({ run, feed }: { run: RunRecord; feed: RunFeed }) {
  const ended = hasEnded(run.state);
  const [log, setLog] = useState(false);
  const [strength, setStrength] = useState(STRENGTH);
  const [axis, setAxis] = useState<Axis>("step");
  const scale = useScale(run, feed, axis);
  const zoom = useZoom(scale);
  const all = useSeries(run.id, feed, zoom.steps);
  const marks = useMarks(run, scale);
  const main = mainMetric(all.map(({ key }) => key));
  const others = all.filter(({ key, x }) => key !== main && x.length > 1 && !NOT_DRAWN.includes(key)).sort(bySmallFirst);
  const view: View = { scale, zoom, log, marks, sync: run.id, tick: TICKS[scale.axis], place: (x) => t.run.at[scale.axis](TICKS[scale.axis](x)) };
  const kinds = [...new Set(marks.map(({ kind }) => kind))];
  const known = axesOf(feed);
  const tools = (
    <>
      <CurveTools axes={known} axis={axis} onAxis={setAxis} log={log} onLog={setLog} strength={strength} onStrength={setStrength} />
      {zoom.range && (
        <Button look="bare" className="text-accent" onClick={() => zoom.choose(null)}>
          {t.run.zoomOut}
        </Button>
      )}
      {!ended && <LiveDot status={feed.status} />}
    </>
  );
  return (
    <>
      <Card title={main ? title(main) : t.run.charts} tools={main ? tools : undefined} className="pb-2">
        {feed.loaded ? <LossChart series={all.find(({ key }) => key === main)} ended={ended} height={280} view={view} strength={strength} /> : <Room height={322} />}
        {main && (
          <p className="flex flex-wrap gap-x-4 px-4 text-xs text-soft">
            {kinds.map((kind) => (
              <Sign key={kind} kind={kind} />
            ))}
            <span className="ml-auto hidden sm:inline">{t.run.zoomHint}</span>
          </p>
        )}
      </Card>
      {!feed.loaded && <Room height={158} />}
      {others.length > 0 && (
        <div className="grid grid-cols-2 gap-2 sm:grid-cols-[repeat(auto-fill,minmax(13.500rem,1fr))] sm:gap-4">
          {others.map((series) => (
            <SmallChart key={series.key} series={series} view={view} />
          ))}
        </div>
      )}
    </>
  );
}

/** As high as what will be there. */
function Room({ height }: { height: number }) {
  return (
    <div style={{ height }} className="flex items-center justify-center text-soft">
      {t.app.loading}
    </div>
  );
}

function Sign({ kind }: { kind: MarkKind }) {
  return (
    <span>
      <span aria-hidden style={{ color: `var(${markColour(kind)})` }}>
        {glyph(kind)}
      </span>{" "}
      {t.run.mark[kind]}
    </span>
  );
}

const TICKS: Record<Axis, (x: number) => string> = { step: short, tokens: compact, flops: (x) => (x === 0 ? "0" : x.toExponential(1)), time: duration };

/** Axes that this run has numbers for. */
const axesOf = (feed: RunFeed): readonly Axis[] => AXES.filter((axis) => axis === "step" || axis === "time" || feed.metrics.series.has(TOKENS));

function useScale(run: RunRecord, feed: RunFeed, axis: Axis): Scale {
  const key = mainMetric(feed.metrics.series.keys());
  const times = useTimes(run.id, axis === "time" ? key : undefined, !hasEnded(run.state)).data;
  const perToken = useFlopsPerToken(run, axis === "flops").data;
  const tokens = feed.metrics.series.get(TOKENS);
  return useMemo(() => {
    if (axis === "time") return scaleOf("time", times ?? null);
    const known = tokens && measured(tokens);
    const knots = known ? { step: known.x, at: known.y } : null;
    if (axis === "flops") return scaleOf(perToken ? "flops" : "step", knots, perToken ?? 1);
    return scaleOf(axis, knots);
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [axis, times, perToken, axis === "tokens" || axis === "flops" ? tokens : null]);
}

/** The part of the x axis that is looked at, kept in steps so that it survives a change of the axis. */
function useZoom(scale: Scale): Zoom & { steps: Range | null } {
  const [steps, setSteps] = useState<Range | null>(null);
  return useMemo(
    () => ({
      steps,
      range: steps && [scale.place(steps[0]), scale.place(steps[1])],
      choose: (range) => setSteps(range && [scale.step(range[0]), scale.step(range[1])]),
    }),
    [steps, scale],
  );
}

/** All series, with what the service has between where it was zoomed in. */
function useSeries(runId: string, feed: RunFeed, steps: Range | null): Curve[] {
  const { version, series } = feed.metrics;
  const [part, setPart] = useState<{ first: number; last: number } | null>(null);
  useEffect(() => {
    if (!steps) return setPart(null);
    const [first, last] = [Math.max(0, Math.floor(steps[0])), Math.ceil(steps[1])];
    const main = series.get(mainMetric(series.keys()) ?? "");
    const drawn = main?.x.filter((x) => x >= first && x <= last).length ?? 0;
    const reached = Math.min(last, main?.x.at(-1) ?? 0);
    setPart(drawn < FINE * (reached - first) ? { first, last: reached } : null);
    // what streams in later is fine enough by itself
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [steps, series]);
  const detail = useDetail(runId, part).data;
  return useMemo(() => {
    const fine = new Map((part && detail ? detail.series : []).map((one) => [one.key, one]));
    return [...series.values()].map((one) => withDetail(one, fine.get(one.key)));
    // `series` is changed in place; `version` tells when
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [series, version, part, detail]);
}

function useMarks(run: RunRecord, scale: Scale): readonly Mark[] {
  const live = !hasEnded(run.state);
  const checkpoints = useCheckpoints(run.id, live).data?.items;
  const evaluations = useEvaluations({ run: run.id }).data?.items;
  const resumes = useResumes(run.id, live).data;
  return useMemo(() => {
    const mark = (kind: MarkKind, step: number, name: string): Mark => ({ x: scale.place(step), kind, label: t.run.markAt(t.run.mark[kind], name) });
    return [
      ...(resumes ?? []).map(({ step, attempt }) => mark("attempt", step, count(attempt))),
      ...(checkpoints ?? []).map(({ step }) => mark("checkpoint", step, count(step))),
      ...(evaluations ?? []).flatMap(({ step, name }) => (step == null ? [] : [mark("evaluation", step, name)])),
    ];
  }, [checkpoints, evaluations, resumes, scale]);
}

function bySmallFirst(a: Curve, b: Curve): number {
  const rank = ({ key }: Curve) => (SMALL_FIRST.includes(key) ? SMALL_FIRST.indexOf(key) : SMALL_FIRST.length);
  return rank(a) - rank(b) || a.key.localeCompare(b.key);
}
