/** Names for the wire types. They come from the service's OpenAPI (`npm run types`); what is no route there is here. */
import type { components } from "./schema";

type Schemas = components["schemas"];
export type Run = Schemas["Run"];
/** What of a run stays as it is from step to step. */
export type RunRecord = Omit<Run, "step" | "summary">;
export type RunState = Schemas["RunState"];
export type RunCreate = Schemas["RunCreate"];
export type Attempt = Schemas["Attempt"];
export type Blocked = Schemas["Blocked"];
export type Pipeline = Schemas["Pipeline"];
export type PipelineCreate = Schemas["PipelineCreate"];
export type PlanCreate = Schemas["PlanCreate"];
export type Plan = Schemas["Plan"];
export type StageView = Schemas["StageView"];
export type System = Schemas["System"];
export type Worker = Schemas["Worker"];
export type GpuStats = Schemas["GpuStats"];

export type Series = Schemas["Series"];
export type Metrics = Schemas["Metrics"];
export type TrainerEvent = Schemas["Event"];
export type BatchRow = Schemas["BatchRow"];
export type BatchToken = Schemas["BatchToken"];
export type LogPage = Schemas["LogPage"];
export type Checkpoint = Schemas["Checkpoint"];
export type Export = Schemas["Export"];
/** An uploaded file; `File` is the browser's. */
export type StoredFile = Schemas["File"];
export type Evaluation = Schemas["Evaluation"];
export type ReportRow = Schemas["ReportRow"];
export type ReportCell = Schemas["ReportCell"];

/** One of GET /v1/models. */
export type Model = { id: string; created: number; owned_by: string };

/** A trainer event as the metric channel carries it. */
export type MetricItem = { seq: number; step: number | null; t: number; values: Record<string, number | null> };

const ENDED: readonly RunState[] = ["succeeded", "failed", "cancelled"];
const LIVE: readonly RunState[] = ["starting", "running", "stopping"];

export const hasEnded = (state: RunState): boolean => ENDED.includes(state);
/** A worker holds it. */
export const isLive = (state: RunState): boolean => LIVE.includes(state);
