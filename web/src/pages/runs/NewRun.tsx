/** The dialog that starts a run. The service checks it; what it finds is shown at the field it is about. */
import { type FormEvent, useEffect, useId, useRef, useState } from "react";
import { at, Problem, type ProblemItem } from "../../api/problems";
import { useCreateRun, useRuns, useStages } from "../../api/queries";
import type { RunCreate } from "../../api/types";
import { type Field, type Row, toOverrides, toText } from "../../lib/overrides";
import { navigate } from "../../router";
import { t } from "../../texts";
import { Button, Failure } from "../../ui/basics";
import { Overrides } from "./Overrides";
import { Problems } from "./Problems";

const SHOWN = ["/stage", "/config", "/name", "/parent", "/gpus", "/overrides"];

export function NewRun({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  const stages = useStages();
  const [form, setForm] = useState({ stage: "base", config: "", name: "", parent: "", gpus: "" });
  const [rows, setRows] = useState<Row[]>([]);
  const create = useCreateRun((run) => navigate(`/runs/${run.id}`));
  const [problem, setProblem] = useState<Problem | null>(null);
  const stage = stages.data?.items.find((item) => item.name === form.stage);
  const fields = (stage?.config_schema["properties"] ?? {}) as Record<string, Field>;
  const inputs = (stage?.inputs ?? []).flatMap((input) => input["stages"] as string[]);
  const parents = useRuns({ state: ["succeeded"], limit: 100 }).data?.items.filter((run) => inputs.includes(run.stage)) ?? [];

  useEffect(() => {
    dialog.current?.showModal();
  }, []);

  const set = (change: Partial<typeof form>) => setForm({ ...form, ...change });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const body = {
      stage: form.stage,
      overrides: toOverrides(rows, fields),
      ...(form.config && { config: form.config }),
      ...(form.name && { name: form.name }),
      ...(form.parent && { parent: form.parent }),
      ...(form.gpus && { gpus: Number(form.gpus) }),
    } as RunCreate;
    setProblem(null);
    create.mutate(body, { onError: (error) => setProblem(error instanceof Problem ? error : null) });
  };
  const useNearest = (item: ProblemItem) => {
    const [, where, key] = item.pointer.split("/");
    const text = toText(item.nearest);
    if (where === "overrides" && key) {
      const known = rows.some((row) => row.key === key);
      // a nearest *name* belongs to a field nobody knows; everything else is a value
      const renames = !(key in fields) && typeof item.nearest === "string" && item.nearest in fields;
      const fixed = rows.map((row) => (row.key === key ? (renames ? { ...row, key: text } : { ...row, text }) : row));
      setRows(known ? fixed : [...fixed, { key, text }]);
    } else if (where && where in form) set({ [where]: text });
    if (problem) setProblem(new Problem(problem.status, problem.code, problem.message, problem.errors.filter((other) => other !== item)));
  };
  const about = (pointer: string) => <Problems items={at(problem, pointer)} onUse={useNearest} />;
  const elsewhere = problem?.errors.filter((item) => !SHOWN.some((pointer) => item.pointer.startsWith(pointer))) ?? [];

  return (
    <dialog
      ref={dialog}
      onClose={onClose}
      aria-labelledby={titleId}
      className="m-auto w-[min(40rem,calc(100vw-1.5rem))] rounded-lg border border-line bg-paper p-0 shadow-xl backdrop:bg-[#0008]"
    >
      <form onSubmit={submit} className="flex flex-col gap-4 p-5">
        <h2 id={titleId} className="text-lg">
          {t.create.title}
        </h2>
        <div className="grid grid-cols-1 gap-4 sm:grid-cols-2">
          <label className="flex min-w-0 flex-col gap-1">
            {t.create.stage}
            <select className="field" value={form.stage} onChange={(event) => set({ stage: event.target.value, config: "", parent: "" })}>
              {stages.data?.items.map((item) => (
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
            <input
              className="field"
              inputMode="numeric"
              pattern="[0-9]*"
              placeholder={t.create.auto}
              value={form.gpus}
              onChange={(event) => set({ gpus: event.target.value })}
            />
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
        <Overrides rows={rows} fields={fields} onChange={setRows} problem={problem} onUse={useNearest} />
        {elsewhere.length > 0 && <Problems items={elsewhere} onUse={useNearest} />}
        {create.error && !(create.error instanceof Problem && create.error.errors.length) && <Failure error={create.error} />}
        <div className="flex justify-end gap-2">
          <Button onClick={() => dialog.current?.close()}>{t.create.cancel}</Button>
          <Button type="submit" look="primary" disabled={create.isPending}>
            {t.create.submit}
          </Button>
        </div>
      </form>
    </dialog>
  );
}
