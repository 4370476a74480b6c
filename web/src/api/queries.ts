/** Everything the pages read and do, as TanStack Query hooks. Live pages invalidate these when told of a change;
 *  polling is the fallback for when the websocket is away. */
import { useInfiniteQuery, useMutation, useQueries, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, getJson, unwrap } from "./client";
import { t } from "../texts";
import { Problem } from "./problems";
import type { Model, Pipeline, PipelineCreate, PlanCreate, Run, RunCreate, RunRecord, RunState, TrainerEvent } from "./types";
import { hasEnded } from "./types";

const SLOW_MS = 15_000;
export const FAST_MS = 3_000;
const PLAN_PAUSE_MS = 250;
const id = (run_id: string) => ({ params: { path: { run_id } } });

export type RunFilter = { stage?: string; state?: RunState[]; limit?: number };

export function useRuns(filter: RunFilter = {}) {
  return useQuery({
    queryKey: ["runs", filter],
    queryFn: () => unwrap(api.GET("/runs", { params: { query: { limit: 100, ...filter } } })),
    refetchInterval: SLOW_MS,
    placeholderData: (previous) => previous,
  });
}

/** Runs to choose from: unlike the lists that are looked at, nobody waits for their next step. */
export function useRunChoices(filter: RunFilter) {
  return useQuery({
    queryKey: ["run choices", filter],
    queryFn: () => unwrap(api.GET("/runs", { params: { query: filter } })),
    refetchInterval: SLOW_MS,
  });
}

export const getRun = (run_id: string) => unwrap(api.GET("/runs/{run_id}", id(run_id)));

export const getEvaluations = (query: { run?: string; pipeline?: string; checkpoint?: string }) => unwrap(api.GET("/evaluations", { params: { query } }));

/** `select`: what of it is used. Its page changes it with every frame (live/runFeed.ts), and who uses only what stays is
 *  not drawn again then; give a function that is the same at every call. */
export function useRun<T = Run>(runId: string, select?: (run: Run) => T) {
  return useQuery({
    queryKey: ["run", runId],
    queryFn: () => getRun(runId),
    refetchInterval: ({ state }) => (state.data && hasEnded(state.data.state) ? false : FAST_MS),
    select,
  });
}

export const recordOf = ({ step: _, summary: __, ...record }: Run): RunRecord => record;

export function usePipelines(limit = 20) {
  return useQuery({
    queryKey: ["pipelines", limit],
    queryFn: () => unwrap(api.GET("/pipelines", { params: { query: { limit } } })),
    refetchInterval: SLOW_MS,
  });
}

export function usePipeline(pipelineId: string) {
  return useQuery({
    queryKey: ["pipeline", pipelineId],
    queryFn: () => unwrap(api.GET("/pipelines/{pipeline_id}", { params: { path: { pipeline_id: pipelineId } } })),
    refetchInterval: ({ state }) => (state.data && hasEnded(state.data.state) ? false : FAST_MS),
  });
}

/** The pipelines that ship, with their steps. */
export function usePipelinePresets() {
  return useQuery({ queryKey: ["pipeline presets"], queryFn: () => unwrap(api.GET("/pipelines/presets")), staleTime: Infinity });
}

export function useStages() {
  return useQuery({ queryKey: ["stages"], queryFn: () => unwrap(api.GET("/stages")), staleTime: Infinity });
}

export function useSystem() {
  return useQuery({
    queryKey: ["system"],
    queryFn: () => unwrap(api.GET("/system")),
    refetchInterval: SLOW_MS,
    staleTime: FAST_MS,
  });
}

/** Those that are not over. */
export function useAlerts() {
  return useQuery({
    queryKey: ["alerts"],
    queryFn: () => unwrap(api.GET("/alerts", { params: { query: { open: true, limit: 50 } } })),
    refetchInterval: 2 * FAST_MS,
  });
}

export function useAttempts(runId: string) {
  return useQuery({ queryKey: ["run", runId, "attempts"], queryFn: () => unwrap(api.GET("/runs/{run_id}/attempts", id(runId))) });
}

/** Which of these runs works on which GPUs of its host. */
export function useHolders(runs: readonly string[]) {
  return useQueries({
    queries: runs.map((run) => ({
      queryKey: ["run", run, "attempts"],
      queryFn: () => unwrap(api.GET("/runs/{run_id}/attempts", id(run))),
      staleTime: SLOW_MS,
    })),
    combine: (answers) => answers.map(({ data }, i) => ({ run: runs[i] as string, gpus: data?.items.at(-1)?.gpus ?? [] })),
  });
}

const EVENTS = 200; // the most the service gives at once

/** What a trainer said of these kinds, oldest first. Asked again, only what is new is fetched: events stay as they are. */
function useTrainerEvents<T>(runId: string, kind: string[], live: boolean, select: (events: TrainerEvent[]) => T) {
  const client = useQueryClient();
  const queryKey = ["run", runId, "events", ...kind];
  return useQuery({
    queryKey,
    refetchInterval: whileLive(live),
    select,
    queryFn: async () => {
      const found = [...(client.getQueryData<TrainerEvent[]>(queryKey) ?? [])];
      for (;;) {
        const query = { after: found.at(-1)?.seq ?? 0, kind, limit: EVENTS };
        const { items, next_cursor } = await unwrap(api.GET("/runs/{run_id}/events", { params: { path: { run_id: runId }, query } }));
        found.push(...items);
        if (next_cursor == null || items.length === 0) return found;
      }
    },
  });
}

/** Where attempts after the first began: what they measured before is void from there on. */
export const useResumes = (runId: string, live: boolean) => useTrainerEvents(runId, ["phase"], live, resumes);

function resumes(events: TrainerEvent[]) {
  const begins = events.filter(({ attempt, data }) => attempt > 1 && (data["phase"] === "resume" || data["phase"] === "train"));
  return begins.map(({ attempt, step }) => ({ attempt, step: step ?? 0 }));
}

/** All it said but numbers, samples and its first batch, which have places of their own. */
export const useEvents = (runId: string, live: boolean) => useTrainerEvents(runId, ["phase", "checkpoint", "eval", "warning", "end"], live, asTheyAre);

const asTheyAre = (events: TrainerEvent[]) => events;

/** More points than a chart has pixels are of no use. */
const MAX_POINTS = 2000;

export type MetricsQuery = { keys?: string; x?: "step" | "time" | "tokens"; first?: number; last?: number; max_points?: number };

export const getMetrics = (run_id: string, query: MetricsQuery = {}) =>
  unwrap(api.GET("/runs/{run_id}/metrics", { params: { path: { run_id }, query: { max_points: MAX_POINTS, ...query } } }));

/** Step → seconds since the run's first event, as knots of a line; asked for again while they grow. */
export function useTimes(runId: string, key: string | undefined, live: boolean) {
  return useQuery({
    queryKey: ["times", runId, key],
    enabled: key !== undefined,
    refetchInterval: live ? 2 * FAST_MS : false,
    queryFn: async () => {
      const keys = { keys: key as string };
      const [steps, times] = await Promise.all([getMetrics(runId, keys), getMetrics(runId, { ...keys, x: "time" })]);
      const step = steps.series[0]?.x ?? [];
      const at = times.series[0]?.x ?? [];
      // both questions have the same points, but a live run may have had more by the second one
      const count = Math.min(step.length, at.length);
      return { step: step.slice(0, count), at: at.slice(0, count) };
    },
  });
}

/** All metrics between two steps, as fine as a chart can show; null: not asked. */
export function useDetail(runId: string, part: { first: number; last: number } | null) {
  return useQuery({
    queryKey: ["detail", runId, part],
    enabled: part !== null,
    staleTime: Infinity,
    queryFn: () => getMetrics(runId, part ?? {}),
  });
}

/** `body`: a PlanCreate as JSON. */
export function usePlan(body: string) {
  return useQuery({
    queryKey: ["plan", body],
    queryFn: async ({ signal }) => {
      // whoever types changes their mind: only what stands for a moment is asked
      await new Promise((resolve) => setTimeout(resolve, PLAN_PAUSE_MS));
      signal.throwIfAborted();
      return unwrap(api.POST("/plans", { body: JSON.parse(body) as PlanCreate, signal }));
    },
    placeholderData: (previous) => previous,
    staleTime: SLOW_MS,
  });
}

/** What the planner counts for a configuration; also for one that ran. */
export function useFlopsPerToken(run: RunRecord, wanted: boolean) {
  const { stage, config, gpus, parent } = run;
  return useQuery({
    queryKey: ["plan", "flops", run.id],
    enabled: wanted,
    staleTime: Infinity,
    retry: false,
    queryFn: async () => {
      const plan = await unwrap(api.POST("/plans", { body: { stage, overrides: config, gpus, checkpoint: "last", ...(parent && { parent }) } }));
      return plan.flops_per_token ?? null;
    },
  });
}

const getLogPage = (run_id: string, query: { after?: number; limit: number; q?: string }, signal?: AbortSignal) =>
  unwrap(api.GET("/runs/{run_id}/logs", { params: { path: { run_id }, query }, signal: signal ?? null }));

/** Where the log begins and ends as it is stored now. */
export async function getLogBounds(run_id: string): Promise<{ start: number; end: number }> {
  const { first, end } = await getLogPage(run_id, { limit: 1 });
  return { start: first, end };
}

/** The log between two byte offsets, and where it stopped: before a character that `end` would cut. */
export async function getLog(run_id: string, after: number, end: number): Promise<{ text: string; last: number }> {
  let [text, last] = ["", after];
  while (last < end) {
    const page = await getLogPage(run_id, { after: last, limit: Math.min(1024 * 1024, end - last) });
    text += page.items.map((chunk) => chunk.text).join("");
    if (page.last <= last) break;
    last = page.last;
  }
  return { text, last };
}

/** The most the service looks up at once. */
const MOST_MATCHES = 1000;

/** Where lines with a word begin, from byte `after` on, and up to where was looked. */
export async function findInLog(run_id: string, word: string, after: number, signal: AbortSignal): Promise<{ found: number[]; last: number }> {
  const { items, last } = await getLogPage(run_id, { q: word, after, limit: MOST_MATCHES }, signal);
  return { found: items.map(({ offset }) => offset), last };
}

/** What a live run leaves behind is asked for again now and then: no frame announces it. */
const whileLive = (live: boolean) => (live ? 2 * FAST_MS : false);

export const useSamples = (runId: string, live: boolean) => useTrainerEvents(runId, ["sample"], live, samples);

function samples(events: TrainerEvent[]) {
  return events.map(({ step, data }) => ({ step: step ?? 0, prompt: String(data["prompt"] ?? ""), text: String(data["text"] ?? "") }));
}

/** `told`: the trainer has made a step, before which it told of its batch. */
export function useFirstBatch(run: RunRecord, told: boolean) {
  return useQuery({
    queryKey: ["run", run.id, "first_batch", run.attempt],
    queryFn: () => unwrap(api.GET("/runs/{run_id}/first_batch", id(run.id))),
    enabled: told,
    retry: false,
    staleTime: Infinity,
  });
}

export function useCheckpoints(runId: string, live: boolean) {
  return useQuery({
    refetchInterval: whileLive(live),
    queryKey: ["run", runId, "checkpoints"],
    queryFn: () => unwrap(api.GET("/runs/{run_id}/checkpoints", id(runId))),
  });
}

export function useEvaluations(where: { run?: string; pipeline?: string }) {
  return useQuery({
    queryKey: ["evaluations", where],
    queryFn: () => getEvaluations(where),
    refetchInterval: SLOW_MS,
  });
}

/** What was measured of a checkpoint, whichever run measured it. */
export function useMeasured(checkpoint: string) {
  return useQuery({ queryKey: ["evaluations", { checkpoint }], queryFn: () => getEvaluations({ checkpoint }), staleTime: SLOW_MS });
}

export function useReport(pipeline_id: string, live: boolean) {
  return useQuery({
    refetchInterval: whileLive(live),
    queryKey: ["report", pipeline_id, live],
    queryFn: () => unwrap(api.GET("/pipelines/{pipeline_id}/report", { params: { path: { pipeline_id } } })),
    placeholderData: (previous) => previous,
  });
}

/** Files of users, newest first; what is on its way is looked at more often. */
export function useFiles() {
  return useInfiniteQuery({
    queryKey: ["files"],
    queryFn: ({ pageParam }) => unwrap(api.GET("/files", { params: { query: { limit: 100, ...(pageParam && { cursor: pageParam }) } } })),
    initialPageParam: "",
    getNextPageParam: ({ next_cursor }) => next_cursor ?? undefined,
    refetchInterval: ({ state }) =>
      state.data?.pages.some(({ items }) => items.some(({ state: now }) => now === "uploading" || now === "checking")) ? FAST_MS : SLOW_MS,
  });
}

export function useDeleteFile() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (file_id: string) => unwrap(api.DELETE("/files/{file_id}", { params: { path: { file_id } } })),
    // a preset goes from the forms too
    onSuccess: () => void client.invalidateQueries(),
  });
}

export function useModels() {
  return useQuery({ queryKey: ["models"], queryFn: () => getJson<{ data: Model[] }>("/v1/models"), refetchInterval: SLOW_MS });
}

export function usePromote() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ checkpoint_id, alias }: { checkpoint_id: string; alias: string }) =>
      unwrap(api.POST("/checkpoints/{checkpoint_id}/promote", { params: { path: { checkpoint_id } }, body: { alias } })),
    onSuccess: () => void client.invalidateQueries({ queryKey: ["models"] }),
  });
}

const exported = (checkpoint_id: string) => ({ params: { path: { checkpoint_id } } });

export function useExports(checkpoint_id: string) {
  return useQuery({
    queryKey: ["exports", checkpoint_id],
    queryFn: () => unwrap(api.GET("/checkpoints/{checkpoint_id}/exports", exported(checkpoint_id))),
    refetchInterval: ({ state }) => (state.data?.items.some((item) => item.state === "running") ? FAST_MS : false),
  });
}

export function useStartExport(checkpoint_id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (dtype: "float32" | "bfloat16") =>
      unwrap(api.POST("/checkpoints/{checkpoint_id}/export", { ...exported(checkpoint_id), body: { format: "hf", dtype } })),
    onSettled: () => client.invalidateQueries({ queryKey: ["exports", checkpoint_id] }),
  });
}

/** Somebody else has changed the same field since; `now` is the run with what they wrote. */
export class ChangedElsewhere extends Problem {
  constructor(readonly now: RunRecord) {
    super(412, "version_mismatch", t.run.changedElsewhere);
  }
}

type Change = { tags?: string[]; notes?: string };

/** `run`: as it was when the change was begun. */
export function usePatchRun() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: async ({ run, ...body }: { run: RunRecord } & Change) => {
      for (let now: RunRecord = run; ; now = await getRun(run.id)) {
        if (Object.keys(body).some((key) => String(now[key as keyof Change]) !== String(run[key as keyof Change]))) throw new ChangedElsewhere(now);
        const params = { path: { run_id: run.id }, header: { "If-Match": `"${now.version}"` } };
        try {
          return await unwrap(api.PATCH("/runs/{run_id}", { params, body }));
        } catch (error) {
          // a version also counts what the run itself does, which is no reason to refuse: look again
          if (!(error instanceof Problem && error.status === 412)) throw error;
        }
      }
    },
    onSuccess: (run) => {
      client.setQueryData(["run", run.id], run);
      void client.invalidateQueries({ queryKey: ["runs"] });
    },
  });
}

export type Action = "cancel" | "pause" | "resume" | "retry";

/* `then` belongs to the mutation, not to the component that started it: that one may be gone by then, because
 * the lists it stands in have changed. */

export function useRunAction(then: (run: Run) => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ runId, action }: { runId: string; action: Action }) =>
      unwrap(api.POST(`/runs/{run_id}/${action}`, id(runId))),
    onSuccess: then,
    onSettled: () => void client.invalidateQueries(),
  });
}

export function useCreateRun(then: (run: Run) => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: RunCreate) => unwrap(api.POST("/runs", { body })),
    onSuccess: (run) => {
      then(run);
      void client.invalidateQueries({ queryKey: ["runs"] });
    },
  });
}

export function useCreatePipeline(then: (made: Pipeline) => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: Partial<PipelineCreate>) => unwrap(api.POST("/pipelines", { body: body as PipelineCreate })),
    onSuccess: (made) => {
      then(made);
      void client.invalidateQueries();
    },
  });
}

export function useCancelPipeline() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (pipeline_id: string) =>
      unwrap(api.POST("/pipelines/{pipeline_id}/cancel", { params: { path: { pipeline_id } } })),
    onSettled: () => void client.invalidateQueries(),
  });
}
