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

type Row = [label: string, text: string | null];

function Needs({ plan, onFit }: { plan: Plan; onFit: Props["onFit"] }) {
  const { fit, rollouts } = plan;
  const wanted = plan.config ?? {};
  const changes = {
    ...(fit?.device_batch_size != null && { device_batch_size: String(fit.device_batch_size) }),
    ...(fit?.total_batch_size != null && { total_batch_size: String(fit.total_batch_size) }),
    ...(fit?.activation_checkpoint && { activation_checkpoint: "true" }),
    ...(fit?.lanes != null && { lanes: String(fit.lanes) }),
  };
  const smaller = fit?.device_batch_size != null && plan.fits === false && Object.entries(changes).some(([key, text]) => String(wanted[key]) !== text);
  const rows: Row[] = [
    [t.plan.device, plan.gpus ? `${plan.gpus} × ${plan.device}` : (plan.device ?? null)],
    [t.plan.parameters, plan.parameters == null ? null : compact(plan.parameters)],
    [t.plan.steps, plan.steps == null ? null : count(plan.steps)],
    [t.plan.tokens, plan.tokens == null ? null : compact(plan.tokens)],
    [t.plan.batch, plan.total_batch_size == null ? null : count(plan.total_batch_size)],
    [t.plan.accumulation, plan.accumulation == null ? null : count(plan.accumulation)],
    [t.plan.answers, rollouts ? count(rollouts.answers) : null],
    [t.plan.lanes, rollouts ? count(rollouts.lanes) : null],
    [t.plan.answering, rollouts ? bytes(rollouts.answering_bytes) : null],
    [t.plan.learning, rollouts ? bytes(rollouts.learning_bytes) : null],
    [t.plan.flops, plan.flops_per_token && plan.tokens ? (plan.flops_per_token * plan.tokens).toExponential(2) : null],
    [t.plan.time, plan.seconds == null ? null : duration(plan.seconds)],
    [t.plan.rate, plan.tokens_per_second == null ? null : compact(plan.tokens_per_second)],
    [t.plan.disk, plan.disk_bytes == null ? null : bytes(plan.disk_bytes)],
    [t.plan.energy, plan.energy_kwh == null ? null : `${plan.energy_kwh.toFixed(1)} kWh`],
  ];
  return (
    <>
      {plan.memory && <MemoryBar plan={plan} />}
      {plan.fits === false && (
        <div role="status" className="flex flex-wrap items-center gap-2 text-bad">
          {t.plan.tooBig}
          {smaller && fit && <Button onClick={() => onFit(changes)}>{t.plan.useFit(String(fit.device_batch_size), fit.activation_checkpoint, fit.lanes ?? null)}</Button>}
        </div>
      )}
      {plan.fits === true && <p className="text-good">{t.plan.fits}</p>}
      <dl className="grid grid-cols-[auto_1fr] gap-x-4 gap-y-1">
        {rows.map(([label, text]) =>
          text === null ? null : (
            <div key={label} className="contents">
              <dt className="text-soft">{label}</dt>
              <dd className="text-right font-medium">{text}</dd>
            </div>
          ),
        )}
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

const PARTS = ["weights", "gradients", "optimizer", "activations", "loss", "buffers", "cache"] as const;
const TONES = ["var(--series)", "var(--good)", "var(--series-2)", "var(--warn)", "var(--bad)", "var(--soft)", "var(--accent)"];

/** The bar's end is the card; what lies beyond it is what does not fit. */
function MemoryBar({ plan }: { plan: Plan }) {
  const { memory, budget_bytes: budget } = plan;
  if (!memory) return null;
  const whole = Math.max(memory.total, budget ?? 0);
  const parts = PARTS.map((part, i) => ({ part, size: memory[part] ?? 0, tone: TONES[i] })).filter(({ size }) => size > 0);
  return (
    <div>
      <div className="mb-1 flex justify-between gap-2">
        <span>{t.plan.memory}</span>
        <b className={`font-medium ${plan.fits === false ? "text-bad" : ""}`}>{budget ? t.plan.ofBudget(bytes(memory.total), bytes(budget)) : bytes(memory.total)}</b>
      </div>
      <div aria-hidden className="relative flex h-4 overflow-hidden rounded-sm bg-well">
        {parts.map(({ part, size, tone }) => (
          <span key={part} style={{ width: `${(size / whole) * 100}%`, background: tone }} />
        ))}
        {budget && budget < whole && <span className="absolute inset-y-0 w-0.5 bg-ink" style={{ left: `${(budget / whole) * 100}%` }} />}
      </div>
      <ul className="mt-1 flex flex-wrap gap-x-3 text-xs text-soft">
        {parts.map(({ part, size, tone }) => (
          <li key={part} className="flex items-center gap-1">
            <span aria-hidden className="size-2 rounded-[2px]" style={{ background: tone }} />
            {t.plan.parts[part]} {bytes(size)}
          </li>
        ))}
      </ul>
    </div>
  );
}
