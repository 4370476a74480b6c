/** What a run would need, asked anew with every change of the form: memory against the card, steps, hours, disk. */
import type { Plan } from "../../api/types";
import type { Problem } from "../../api/problems";
import { bytes, compact, count, duration } from "../../lib/format";
import { t } from "../../texts";
import { Button, Card, Note } from "../../ui/basics";

type Props = {
  plan: Plan | undefined;
  error: Problem | null;
  gpu: string;
  onGpu: (gpu: string) => void;
  onFit: (changes: Record<string, string>) => void;
};

export function Planner({ plan, error, gpu, onGpu, onFit }: Props) {
  return (
    <Card title={t.plan.title} className="lg:sticky lg:top-16">
      <div className="flex flex-col gap-4 p-4">
        <label className="flex items-center gap-2 text-soft">
          {t.plan.card}
          <input className="field min-w-0 flex-1 text-ink" placeholder={`${t.plan.thisMachine}, ${t.plan.cardHint}`} value={gpu} onChange={(event) => onGpu(event.target.value)} />
        </label>
        {error ? (
          <Note>{error.message}</Note>
        ) : !plan ? (
          <p className="text-soft">{t.plan.waiting}</p>
        ) : plan.config === null ? (
          <Note tone="warn">{t.plan.invalid}</Note>
        ) : (
          <Needs plan={plan} onFit={onFit} />
        )}
      </div>
    </Card>
  );
}

function Needs({ plan, onFit }: { plan: Plan; onFit: Props["onFit"] }) {
  const { fit } = plan;
  const smaller = fit?.device_batch_size != null && fit.device_batch_size !== plan.config?.["device_batch_size"] && plan.fits === false;
  const facts: [label: string, text: string][] = [
    [t.plan.device, plan.gpus ? `${plan.gpus} × ${plan.device}` : plan.device],
    [t.plan.parameters, compact(plan.parameters)],
    [t.plan.steps, count(plan.steps)],
    [t.plan.tokens, compact(plan.tokens)],
    [t.plan.batch, count(plan.total_batch_size)],
    [t.plan.accumulation, count(plan.accumulation)],
    [t.plan.flops, plan.flops_per_token && plan.tokens ? (plan.flops_per_token * plan.tokens).toExponential(2) : "–"],
    [t.plan.time, duration(plan.seconds)],
    [t.plan.rate, compact(plan.tokens_per_second)],
    [t.plan.disk, bytes(plan.disk_bytes)],
    ...(plan.energy_kwh == null ? [] : [[t.plan.energy, `${plan.energy_kwh.toFixed(1)} kWh`] as [string, string]]),
  ];
  return (
    <>
      {plan.memory && <MemoryBar plan={plan} />}
      {plan.fits === false && (
        <div role="status" className="flex flex-wrap items-center gap-2 text-bad">
          {t.plan.tooBig}
          {smaller && fit && (
            <Button
              onClick={() =>
                onFit({
                  device_batch_size: String(fit.device_batch_size),
                  total_batch_size: String(fit.total_batch_size),
                  ...(fit.activation_checkpoint && { activation_checkpoint: "true" }),
                })
              }
            >
              {t.plan.useFit(String(fit.device_batch_size), fit.activation_checkpoint)}
            </Button>
          )}
        </div>
      )}
      {plan.fits === true && <p className="text-good">{t.plan.fits}</p>}
      <dl className="grid grid-cols-[auto_1fr] gap-x-4 gap-y-1">
        {facts.map(([label, text]) => (
          <div key={label} className="contents">
            <dt className="text-soft">{label}</dt>
            <dd className="text-right font-medium">{text}</dd>
          </div>
        ))}
      </dl>
      {(plan.notes?.length ?? 0) > 0 && (
        <ul className="list-disc pl-4 text-xs text-soft">
          {plan.notes?.map((note) => (
            <li key={note}>{note}</li>
          ))}
        </ul>
      )}
    </>
  );
}

const PARTS = ["weights", "gradients", "optimizer", "activations", "loss", "buffers"] as const;
const TONES = ["var(--series)", "var(--good)", "var(--series-2)", "var(--warn)", "var(--bad)", "var(--soft)"];

/** The bar's end is the card; what lies beyond it is what does not fit. */
function MemoryBar({ plan }: { plan: Plan }) {
  const { memory, budget_bytes: budget } = plan;
  if (!memory) return null;
  const whole = Math.max(memory.total, budget ?? 0);
  return (
    <div>
      <div className="mb-1 flex justify-between gap-2">
        <span>{t.plan.memory}</span>
        <b className={`font-medium ${plan.fits === false ? "text-bad" : ""}`}>{budget ? t.plan.ofBudget(bytes(memory.total), bytes(budget)) : bytes(memory.total)}</b>
      </div>
      <div aria-hidden className="relative flex h-4 overflow-hidden rounded-sm bg-well">
        {PARTS.map((part, i) => (
          <span key={part} style={{ width: `${(memory[part] / whole) * 100}%`, background: TONES[i] }} />
        ))}
        {budget && budget < whole && <span className="absolute inset-y-0 w-0.5 bg-ink" style={{ left: `${(budget / whole) * 100}%` }} />}
      </div>
      <ul className="mt-1 flex flex-wrap gap-x-3 text-xs text-soft">
        {PARTS.map((part, i) => (
          <li key={part} className="flex items-center gap-1">
            <span aria-hidden className="size-2 rounded-[2px]" style={{ background: TONES[i] }} />
            {t.plan.parts[part]} {bytes(memory[part])}
          </li>
        ))}
      </ul>
    </div>
  );
}
