/** What a run's numbers mean: which metric is its loss, how far it is, when it will be done. */
import type { Run, RunRecord } from "../api/types";
import { isLive } from "../api/types";
import { t } from "../texts";
import { count } from "./format";

const LOSSES = ["reward/mean", "train/loss", "sft/loss"];

/** The key of the curve that tells whether this run learns. */
export function mainMetric(keys: Iterable<string>): string | undefined {
  const known = new Set(keys);
  return LOSSES.find((key) => known.has(key));
}

export function latestLoss(run: Run): number | undefined {
  const key = mainMetric(Object.keys(run.summary));
  return key === undefined ? undefined : run.summary[key];
}

/** What that curve is called: a reward is no loss. */
export function lossName(run: Run): string {
  const key = mainMetric(Object.keys(run.summary));
  return (key && t.metric[key]) || t.pipeline.loss;
}

/** 0…1, or null when nobody knows. */
export function progress(run: Run): number | null {
  if (run.state === "succeeded") return 1;
  if (run.step == null || !run.steps) return null;
  return Math.min(1, run.step / run.steps);
}

/** "120 / 300"; "–" before the first step. */
export function steps(run: Run): string {
  if (!run.steps) return count(run.step);
  // steps count from 0, so the last one of a whole run is called steps - 1
  return `${count(run.state === "succeeded" ? run.steps : (run.step ?? 0))} / ${count(run.steps)}`;
}

/** Seconds left at the speed of the last steps; null when that cannot be said. */
export function secondsLeft(run: Run): number | null {
  const stepMs = run.summary["train/dt_ms"];
  if (!isLive(run.state) || stepMs === undefined || run.step == null || !run.steps) return null;
  return (Math.max(0, run.steps - run.step) * stepMs) / 1000;
}

export type ActionName = "cancel" | "pause" | "resume" | "retry";

/** What the run's state allows right now. Mirrors the service's table; a 409 is still possible and shown. */
export function actions(run: RunRecord): ActionName[] {
  switch (run.state) {
    case "waiting":
    case "queued":
    case "starting":
    case "running":
    case "lost":
      return run.desired === "run" ? ["pause", "cancel"] : run.desired === "pause" ? ["cancel"] : [];
    case "stopping":
      return run.desired === "pause" ? ["cancel"] : [];
    case "paused":
      return ["resume", "cancel"];
    case "failed":
    case "cancelled":
      return ["retry"];
    case "succeeded":
      return [];
  }
}
