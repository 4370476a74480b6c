/** Everything the pages read and do, as TanStack Query hooks. Live pages invalidate these when told of a change;
 *  polling is the fallback for when the websocket is away. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, getJson, unwrap } from "./client";
import type { Model, Pipeline, Run, RunCreate, RunState } from "./types";
import { hasEnded } from "./types";

const SLOW_MS = 15_000;
const FAST_MS = 3_000;
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

export function useRun(runId: string) {
  return useQuery({
    queryKey: ["run", runId],
    queryFn: () => unwrap(api.GET("/runs/{run_id}", id(runId))),
    refetchInterval: ({ state }) => (state.data && hasEnded(state.data.state) ? false : FAST_MS),
  });
}

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

export function useAttempts(runId: string) {
  return useQuery({ queryKey: ["run", runId, "attempts"], queryFn: () => unwrap(api.GET("/runs/{run_id}/attempts", id(runId))) });
}

/** More points than a chart has pixels are of no use. */
const MAX_POINTS = 2000;

export const getMetrics = (run_id: string) =>
  unwrap(api.GET("/runs/{run_id}/metrics", { params: { path: { run_id }, query: { max_points: MAX_POINTS } } }));

/** The end of the log as it is stored now. */
export const getLogEnd = async (run_id: string) =>
  (await unwrap(api.GET("/runs/{run_id}/logs", { params: { path: { run_id }, query: { limit: 1 } } }))).end;

/** What a live run leaves behind is asked for again now and then: no frame announces it. */
const whileLive = (live: boolean) => (live ? 2 * FAST_MS : false);

export function useSamples(runId: string, live: boolean) {
  return useQuery({ refetchInterval: whileLive(live), queryKey: ["run", runId, "samples"], queryFn: () => unwrap(api.GET("/runs/{run_id}/samples", id(runId))) });
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
    queryFn: () => unwrap(api.GET("/evaluations", { params: { query: where } })),
    refetchInterval: SLOW_MS,
  });
}

export function useReport(pipeline_id: string, live: boolean) {
  return useQuery({
    refetchInterval: whileLive(live),
    queryKey: ["report", pipeline_id, live],
    queryFn: () => unwrap(api.GET("/pipelines/{pipeline_id}/report", { params: { path: { pipeline_id } } })),
    placeholderData: (previous) => previous,
  });
}

export function useModels() {
  return useQuery({ queryKey: ["models"], queryFn: () => getJson<{ data: Model[] }>("/v1/models"), refetchInterval: SLOW_MS });
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

export function useTrainDemo(then: (made: Pipeline) => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => unwrap(api.POST("/pipelines", { body: { preset: "demo" } as never })),
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
