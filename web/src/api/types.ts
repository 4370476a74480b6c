/** Names for the wire types. They come from the service's OpenAPI; only what it does not have yet is written here. */
import type { components } from "./schema";

type Schemas = components["schemas"];
export type Run = Schemas["Run"];
export type RunState = Schemas["RunState"];
export type RunCreate = Schemas["RunCreate"];
export type Attempt = Schemas["Attempt"];
export type Blocked = Schemas["Blocked"];
export type Pipeline = Schemas["Pipeline"];
export type StageView = Schemas["StageView"];
export type System = Schemas["System"];
export type Worker = Schemas["Worker"];
export type GpuStats = Schemas["GpuStats"];

export type Page<T> = { items: T[]; next_cursor?: string | null };
export type Series = { key: string; x: number[]; y: (number | null)[] };
export type Metrics = { x: "step" | "time" | "tokens"; series: Series[]; last: number };
export type Sample = { step: number; prompt: string; text: string; t: number };
export type LogPage = { items: { offset: number; text: string }[]; first: number; last: number; end: number };
export type Checkpoint = {
  id: string;
  run_id: string;
  stage: string;
  step: number;
  metrics: Record<string, number>;
  bytes: number;
  sha256: string;
  model: string | null;
  path: string;
  created_at: string;
};
export type Evaluation = {
  run_id: string;
  step: number | null;
  name: string;
  values: Record<string, number>;
  counts: Record<string, number>;
  details: Record<string, unknown>;
  created_at: string;
};
export type Model = { id: string; created: number; owned_by: string };

/** A trainer event as the metric channel carries it. */
export type MetricItem = { seq: number; step: number | null; t: number; attempt: number; values: Record<string, number | null> };

const ENDED: readonly RunState[] = ["succeeded", "failed", "cancelled"];
const LIVE: readonly RunState[] = ["starting", "running", "stopping"];

export const hasEnded = (state: RunState): boolean => ENDED.includes(state);
/** A worker holds it. */
export const isLive = (state: RunState): boolean => LIVE.includes(state);
