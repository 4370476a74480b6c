/** A new pipeline: one that ships, as it is or with its steps changed, drawn before it starts. `?preset=NAME`. */
import { type FormEvent, useMemo, useRef, useState } from "react";
import { at, Problem, type ProblemItem } from "../api/problems";
import { useCreatePipeline, usePipelinePresets, useStages } from "../api/queries";
import { may } from "../api/session";
import type { PipelineCreate } from "../api/types";
import { brief, mended, placeOf, readSteps, type Sketch, sketch, writeSteps } from "../lib/steps";
import { navigate } from "../router";
import { t } from "../texts";
import { Button, Card, Empty, Failure, Note, Page } from "../ui/basics";
import { StepGraph } from "./pipeline/StepStrip";
import { Problems } from "./runs/Problems";

/** Texts by the name of the preset they come from. */
type Texts = Readonly<Record<string, string>>;

export function NewPipelinePage({ query }: { query: URLSearchParams }) {
  const presets = usePipelinePresets();
  if (!presets.data) return presets.error ? <Failure error={presets.error} again={() => void presets.refetch()} /> : <p className="text-soft">{t.app.loading}</p>;
  const shipped = Object.fromEntries(presets.data.items.map(({ name, steps }) => [name, writeSteps(steps.map(brief))]));
  const wanted = query.get("preset") ?? "demo";
  return <PipelineForm shipped={shipped} first={wanted in shipped ? wanted : (Object.keys(shipped)[0] ?? "")} />;
}

function PipelineForm({ shipped, first }: { shipped: Texts; first: string }) {
  const [preset, setPreset] = useState(first);
  const [name, setName] = useState("");
  const [written, setWritten] = useState<Texts>({}); // what was changed of one preset stays while others are looked at
  const [problem, setProblem] = useState<Problem | null>(null);
  const create = useCreatePipeline((made) => navigate(`/pipelines/${made.id}`));
  const stages = useStages().data?.items ?? [];
  const isField = (stage: string, field: string) => field in ((stages.find((known) => known.name === stage)?.config_schema["properties"] ?? {}) as object);
  const text = written[preset] ?? shipped[preset] ?? "[]";
  const read = useMemo(() => readSteps(text), [text]);
  const drawn = useRef<Sketch[]>([]);
  if (read.steps) drawn.current = sketch(read.steps); // what is half written leaves the last picture
  const steps = read.steps ?? [];

  const write = (next: string) => {
    setProblem(null);
    setWritten({ ...written, [preset]: next });
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const what: Partial<PipelineCreate> = text === shipped[preset] ? { preset } : { steps: steps as PipelineCreate["steps"] };
    create.mutate({ ...what, name: name || preset }, { onError: (error) => setProblem(error instanceof Problem ? error : null) });
  };
  const items = problem?.errors ?? [];
  const of = (index: number) => items.filter((item) => placeOf(item, steps)?.index === index);
  const use = (item: ProblemItem) => {
    const place = placeOf(item, steps);
    if (place?.path.length) write(writeSteps(mended(steps, place, item.nearest, isField)));
    else if (item.pointer === "/name") setName(String(item.nearest));
  };
  const elsewhere = items.filter((item) => item.pointer !== "/name" && placeOf(item, steps) === null);
  return (
    <Page title={t.pipeline.create}>
      {!may("submit") && <Note tone="warn">{t.pipeline.mayNot}</Note>}
      <form onSubmit={submit} className="flex min-w-0 flex-col gap-4">
        <div className="grid grid-cols-1 gap-4 sm:grid-cols-2">
          <label className="flex min-w-0 flex-col gap-1">
            {t.pipeline.preset}
            <select
              className="field"
              value={preset}
              onChange={(event) => {
                setProblem(null);
                setPreset(event.target.value);
              }}
            >
              {Object.keys(shipped).map((known) => (
                <option key={known}>{known}</option>
              ))}
            </select>
          </label>
          <label className="flex min-w-0 flex-col gap-1">
            <span>
              {t.create.name} <span className="text-soft">({t.create.optional})</span>
            </span>
            <input className="field placeholder:text-soft" value={name} maxLength={64} placeholder={preset} onChange={(event) => setName(event.target.value)} />
            <Problems items={at(problem, "/name")} onUse={use} />
          </label>
        </div>
        <Card>
          {drawn.current.length > 0 ? (
            <StepGraph steps={drawn.current}>{(step) => <Drawn step={step} items={of(Number(step.id))} path={(item) => placeOf(item, steps)?.path ?? []} onUse={use} />}</StepGraph>
          ) : (
            <Empty>{t.pipeline.empty}</Empty>
          )}
        </Card>
        <div className="flex min-w-0 flex-col gap-1">
          <div className="flex flex-wrap items-baseline justify-between gap-x-3">
            <label htmlFor="steps">{t.pipeline.steps}</label>
            {text !== shipped[preset] && (
              <Button look="bare" className="text-accent" onClick={() => write(shipped[preset] ?? "[]")}>
                {t.pipeline.asPreset}
              </Button>
            )}
          </div>
          <textarea
            id="steps"
            className="field font-mono whitespace-pre"
            rows={Math.min(24, Math.max(8, text.split("\n").length + 1))}
            spellCheck={false}
            autoCapitalize="off"
            value={text}
            aria-invalid={read.steps === null}
            aria-describedby="steps-hint"
            onChange={(event) => write(event.target.value)}
          />
          <span id="steps-hint" className="text-xs text-soft">
            {t.pipeline.stepsHint}
          </span>
          {read.steps === null && (
            <span role="alert" className="text-bad">
              {t.pipeline.noSteps(read.fault)}
            </span>
          )}
          <Problems items={elsewhere} onUse={use} />
          {create.error && !items.length && <Failure error={create.error} />}
        </div>
        {may("submit") && (
          <Button type="submit" look="primary" className="self-end" disabled={create.isPending || !steps.length}>
            {t.pipeline.start}
          </Button>
        )}
      </form>
    </Page>
  );
}

type DrawnProps = { step: Sketch; items: ProblemItem[]; path: (item: ProblemItem) => string[]; onUse: (item: ProblemItem) => void };

function Drawn({ step, items, path, onUse }: DrawnProps) {
  return (
    <div className={`h-full min-w-0 rounded-md px-2 py-2 ${items.length ? "outline outline-bad" : ""}`}>
      <div className="flex items-baseline justify-between gap-2">
        <span className="truncate font-medium">{step.name || "?"}</span>
        <span className="shrink-0 text-xs text-soft">{t.pipeline.stage[step.stage] ?? step.stage}</span>
      </div>
      <p className="truncate text-xs text-soft" title={step.config}>
        {[step.config, step.optional && t.pipeline.isOptional].filter(Boolean).join(" · ") || " "}
      </p>
      {step.told.map((said) => (
        <p key={said} className="truncate font-mono text-xs" title={said}>
          {said}
        </p>
      ))}
      {items.map((item) => (
        <div key={item.pointer + item.message} className="mt-1 text-xs">
          <span className="font-mono text-soft">{path(item).join(".")}</span>
          <Problems items={[item]} onUse={onUse} />
        </div>
      ))}
    </div>
  );
}
