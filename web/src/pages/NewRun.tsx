/** A new run: the form of its stage beside what it would need. `?from=ID` starts from what another run was told,
 *  `?stage=…&config=…&set=key=value` from these. */
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useDeferredValue, useEffect, useState } from "react";
import { api, unwrap } from "../api/client";
import { at, Problem, type ProblemItem } from "../api/problems";
import { useCreateRun, usePlan, useRun, useRuns, useStages } from "../api/queries";
import type { Run, RunCreate, StageView } from "../api/types";
import { settings } from "../lib/files";
import { changed, type Field, toOverrides, toText } from "../lib/overrides";
import { navigate } from "../router";
import { t } from "../texts";
import { Button, Failure, Page } from "../ui/basics";
import { Fields, type Values } from "./runs/Fields";
import { Planner } from "./runs/Planner";
import { Problems } from "./runs/Problems";

type Form = { stage: string; config: string; name: string; parent: string; gpus: string; values: Values };

export function NewRunPage({ query }: { query: URLSearchParams }) {
  const from = query.get("from");
  const stages = useStages();
  if (!stages.data) return stages.error ? <Failure error={stages.error} again={() => void stages.refetch()} /> : <p className="text-soft">{t.app.loading}</p>;
  if (from) return <Copy from={from} stages={stages.data.items} />;
  const start: Form = { stage: query.get("stage") ?? "base", config: query.get("config") ?? "", name: "", parent: "", gpus: "", values: settings(query) };
  return <RunForm title={t.create.title} start={start} stages={stages.data.items} />;
}

/** The other run's preset, and as changes what it was told beside it. */
function Copy({ from, stages }: { from: string; stages: StageView[] }) {
  const run = useRun(from);
  const preset = run.data?.preset ?? null;
  const known = stages.find(({ name }) => name === run.data?.stage)?.presets.includes(preset ?? "") === true;
  const config = useQuery({
    queryKey: ["config", preset],
    enabled: known,
    queryFn: () => unwrap(api.GET("/configs/{name}", { params: { path: { name: preset ?? "" } } })),
  });
  if (run.error) return <Failure error={run.error} again={() => void run.refetch()} />;
  if (!run.data || (known && config.isPending)) return <p className="text-soft">{t.app.loading}</p>;
  const base = known ? ((config.data?.resolved ?? {}) as Record<string, unknown>) : defaults(stages, run.data);
  const start: Form = {
    stage: run.data.stage,
    config: known ? (preset as string) : "",
    name: "",
    parent: run.data.parent ?? "",
    gpus: String(run.data.gpus),
    values: changed(run.data.config, base),
  };
  return <RunForm title={t.create.copyOf(run.data.name)} start={start} stages={stages} />;
}

function defaults(stages: StageView[], run: Run): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fieldsOf(stages.find(({ name }) => name === run.stage))).map(([key, field]) => [key, field.default]));
}

const fieldsOf = (stage: StageView | undefined) => (stage?.config_schema["properties"] ?? {}) as Record<string, Field>;

function RunForm({ title, start, stages }: { title: string; start: Form; stages: StageView[] }) {
  const [form, setForm] = useState(start);
  const [gpu, setGpu] = useState("");
  const [refused, setRefused] = useState<Problem | null>(null);
  const create = useCreateRun((run) => navigate(`/runs/${run.id}`));
  const stage = stages.find(({ name }) => name === form.stage);
  const fields = fieldsOf(stage);
  const inputs = (stage?.inputs ?? []).flatMap((input) => input["stages"] as string[]);
  const parents = useRuns({ state: ["succeeded"], limit: 100 }).data?.items.filter((run) => inputs.includes(run.stage)) ?? [];
  const overrides = toOverrides(form.values, fields);
  const asked = useDeferredValue(JSON.stringify({ stage: form.stage, overrides, ...(form.config && { config: form.config }), ...(form.parent && { parent: form.parent }), ...(form.gpus && { gpus: Number(form.gpus) }), ...(gpu.trim() && { gpu: gpu.trim() }) }));
  const plan = usePlan(asked);
  // what the service refused stays until something changes; before that, the planner says what is wrong
  const found = plan.data?.problems?.length ? new Problem(422, "invalid", "", plan.data.problems as ProblemItem[]) : null;
  const problem = refused ?? found;
  useEffect(() => setRefused(null), [form]);

  const set = (change: Partial<Form>) => setForm({ ...form, ...change });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const body = {
      stage: form.stage,
      overrides,
      ...(form.config && { config: form.config }),
      ...(form.name && { name: form.name }),
      ...(form.parent && { parent: form.parent }),
      ...(form.gpus && { gpus: Number(form.gpus) }),
    } as RunCreate;
    create.mutate(body, { onError: (error) => setRefused(error instanceof Problem ? error : null) });
  };
  const useNearest = (item: ProblemItem) => {
    const [, where, key] = item.pointer.split("/");
    const text = toText(item.nearest);
    if (where === "overrides" && key) set({ values: { ...form.values, [key]: text } });
    else if (where && where in form) set({ [where]: text });
  };
  const about = (pointer: string) => <Problems items={at(problem, pointer)} onUse={useNearest} />;
  const shown = ["/stage", "/config", "/name", "/parent", "/gpus", ...Object.keys(fields).map((key) => `/overrides/${key}`)];
  const elsewhere = problem?.errors.filter((item) => !shown.some((pointer) => item.pointer === pointer || item.pointer.startsWith(`${pointer}/`))) ?? [];
  return (
    <Page title={title}>
      <div className="grid items-start gap-4 lg:grid-cols-[1fr_22rem]">
        <form onSubmit={submit} className="flex min-w-0 flex-col gap-5 rounded-lg border border-line bg-card p-4">
          <div className="grid grid-cols-1 gap-4 sm:grid-cols-2">
            <label className="flex min-w-0 flex-col gap-1">
              {t.create.stage}
              <select className="field" value={form.stage} onChange={(event) => set({ stage: event.target.value, config: "", parent: "", values: {} })}>
                {stages.map((item) => (
                  <option key={item.name} value={item.name}>
                    {item.name} ({item.title})
                  </option>
                ))}
              </select>
              {about("/stage")}
            </label>
            <label className="flex min-w-0 flex-col gap-1">
              {t.create.preset}
              <select className="field" value={form.config} onChange={(event) => set({ config: event.target.value })}>
                <option value="">{t.create.noPreset}</option>
                {stage?.presets.map((preset) => <option key={preset}>{preset}</option>)}
              </select>
              {about("/config")}
            </label>
            <label className="flex min-w-0 flex-col gap-1">
              <span>
                {t.create.name} <span className="text-soft">({t.create.optional})</span>
              </span>
              <input className="field" value={form.name} maxLength={64} onChange={(event) => set({ name: event.target.value })} />
              {about("/name")}
            </label>
            <label className="flex min-w-0 flex-col gap-1">
              {t.create.gpus}
              <input className="field" inputMode="numeric" pattern="[0-9]*" placeholder={t.create.auto} value={form.gpus} onChange={(event) => set({ gpus: event.target.value })} />
              {about("/gpus")}
            </label>
            {inputs.length > 0 && (
              <label className="flex min-w-0 flex-col gap-1 sm:col-span-2">
                {t.create.parent}
                <select className="field" value={form.parent} onChange={(event) => set({ parent: event.target.value })}>
                  <option value="">{t.create.newest}</option>
                  {parents.map((run) => (
                    <option key={run.id} value={run.id}>
                      {run.name} ({run.stage}, {run.id})
                    </option>
                  ))}
                </select>
                {about("/parent")}
              </label>
            )}
          </div>
          <Fields
            key={form.stage}
            fields={fields}
            values={form.values}
            effective={plan.data?.config ?? {}}
            problem={problem}
            onChange={(key, text) => set({ values: { ...form.values, [key]: text } })}
            onUse={useNearest}
          />
          {elsewhere.length > 0 && <Problems items={elsewhere} onUse={useNearest} />}
          {create.error && !(create.error instanceof Problem && create.error.errors.length) && <Failure error={create.error} />}
          <Button type="submit" look="primary" className="self-end" disabled={create.isPending}>
            {t.create.submit}
          </Button>
        </form>
        <Planner plan={plan.data} error={plan.error instanceof Problem ? plan.error : null} gpu={gpu} onGpu={setGpu} onFit={(changes) => set({ values: { ...form.values, ...changes } })} />
      </div>
    </Page>
  );
}
