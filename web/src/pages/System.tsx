/** Hosts and GPUs, live; who holds them, and who waits for them. */
import { useHolders, useRuns, useSystem } from "../api/queries";
import type { GpuStats, Run, Worker } from "../api/types";
import { ago, bytes, percent } from "../lib/format";
import { Link } from "../router";
import { t } from "../texts";
import { Bar, Card, Empty, Fact, Failure, Page, StateBadge } from "../ui/basics";
import { OpenAlerts } from "./system/Alerts";

export function SystemPage() {
  const system = useSystem();
  if (!system.data) return system.error ? <Failure error={system.error} again={() => void system.refetch()} /> : <p className="text-soft">{t.app.loading}</p>;
  const { workers, running, queued, database, version } = system.data;
  return (
    <Page title={t.system.title}>
      <Card className="p-4">
        <dl className="grid grid-cols-2 gap-4 sm:grid-cols-4">
          <Fact label={t.system.running}>{running}</Fact>
          <Fact label={t.system.queued}>{queued}</Fact>
          <Fact label={t.system.database}>{database}</Fact>
          <Fact label={t.system.version}>{version}</Fact>
        </dl>
      </Card>
      <OpenAlerts />
      {workers.length === 0 && (
        <Card>
          <Empty>{t.system.noWorkers}</Empty>
        </Card>
      )}
      <div className={`grid items-start gap-4 ${workers.length > 1 ? "lg:grid-cols-2" : ""}`}>
        {workers.map((worker) => (
          <WorkerCard key={worker.id} worker={worker} />
        ))}
      </div>
      <Queue />
    </Page>
  );
}

/** In the order in which they will be served: priority, then age. */
function Queue() {
  const waiting = useRuns({ state: ["queued", "waiting"], limit: 100 }).data?.items ?? [];
  if (waiting.length === 0) return null;
  const order = waiting.toSorted((a, b) => b.priority - a.priority || a.created_at.localeCompare(b.created_at));
  return (
    <Card title={t.system.queue}>
      <ol className="divide-y divide-line">
        {order.map((run) => (
          <li key={run.id} className="flex flex-wrap items-baseline gap-x-4 gap-y-1 px-4 py-2">
            <Link to={`/runs/${run.id}`} className="font-medium text-accent underline-offset-2 hover:underline">
              {run.name}
            </Link>
            <StateBadge state={run.state} />
            <span className="text-soft">{why(run)}</span>
            <span className="ml-auto text-soft">{ago(run.created_at)}</span>
          </li>
        ))}
      </ol>
    </Card>
  );
}

function why(run: Run): string {
  if (run.blocked) return run.blocked.message;
  if (run.state === "waiting") return t.system.waitsFor(run.parent ?? "");
  return run.priority ? t.system.priority(run.priority) : "";
}

function WorkerCard({ worker }: { worker: Worker }) {
  const { stats } = worker;
  const holders = useHolders(worker.gpus.length > 0 ? worker.runs : []);
  const tools = (
    <>
      <span className="text-soft">{t.system.slots(worker.runs.length, worker.slots)}</span>
      <span className={`inline-flex items-center gap-1.5 font-medium ${worker.alive ? "text-good" : "text-bad"}`}>
        <span aria-hidden className="size-2 rounded-full bg-current" />
        {worker.alive ? t.system.alive : t.system.gone}
      </span>
    </>
  );
  return (
    <Card title={worker.host === worker.name ? worker.host : `${worker.host} · ${worker.name}`} tools={tools} className={worker.alive ? "" : "border-dashed"}>
      <div className="grid gap-4 p-4 sm:grid-cols-3">
        {stats ? (
          <>
            <Gauge label={t.system.cpu} share={stats.cpu} value={percent(stats.cpu)} detail={t.system.cores(stats.cores)} calm />
            <Gauge
              label={t.system.memory}
              share={ratio(stats.memory_used_bytes, stats.memory_total_bytes)}
              value={percent(ratio(stats.memory_used_bytes, stats.memory_total_bytes))}
              detail={t.system.used(bytes(stats.memory_used_bytes), bytes(stats.memory_total_bytes))}
            />
            <Gauge
              label={t.system.disk}
              share={1 - ratio(stats.disk_free_bytes, stats.disk_total_bytes)}
              value={percent(1 - ratio(stats.disk_free_bytes, stats.disk_total_bytes))}
              detail={t.system.free(bytes(stats.disk_free_bytes))}
            />
          </>
        ) : (
          <p className="text-soft sm:col-span-3">{t.system.noStats}</p>
        )}
      </div>
      {worker.gpus.length === 0 && !stats?.gpus?.length ? (
        <p className="border-t border-line px-4 py-2 text-soft">{t.system.noGpus}</p>
      ) : (
        (stats?.gpus ?? []).map((gpu) => <GpuRow key={gpu.index} gpu={gpu} holders={holders.filter(({ gpus }) => gpus.includes(gpu.index)).map(({ run }) => run)} />)
      )}
      {worker.runs.length > 0 && (
        <p className="flex flex-wrap gap-x-3 border-t border-line px-4 py-2 text-soft">
          {t.system.runs}
          {worker.runs.map((run) => (
            <Link key={run} to={`/runs/${run}`} className="font-mono text-accent underline-offset-2 hover:underline">
              {run}
            </Link>
          ))}
        </p>
      )}
    </Card>
  );
}

function GpuRow({ gpu, holders }: { gpu: GpuStats; holders: string[] }) {
  const memory = ratio(gpu.memory_used_bytes, gpu.memory_total_bytes);
  const throttle = gpu.throttle ?? [];
  const measures = [
    gpu.power_w != null && `${Math.round(gpu.power_w)} W`,
    gpu.temperature_c != null && `${Math.round(gpu.temperature_c)} °C`,
    gpu.clock_sm_mhz != null && t.system.clock(gpu.clock_sm_mhz),
    gpu.clock_memory_mhz != null && t.system.memoryClock(gpu.clock_memory_mhz),
  ].filter(Boolean);
  return (
    <div className="border-t border-line p-4">
      <div className="mb-2 flex flex-wrap justify-between gap-x-4">
        <span className="font-medium">
          {t.system.gpu} {gpu.index} · {gpu.name}
        </span>
        <span className="text-soft">{measures.join(" · ")}</span>
      </div>
      <div className="grid gap-4 sm:grid-cols-2">
        <Gauge label={t.system.utilization} share={gpu.utilization ?? null} value={percent(gpu.utilization)} calm />
        <Gauge label={t.system.memory} share={memory} value={percent(memory)} detail={t.system.used(bytes(gpu.memory_used_bytes), bytes(gpu.memory_total_bytes))} calm />
      </div>
      {throttle.length > 0 && <p className="mt-2 text-warn">{t.system.throttled(throttle.map((reason) => t.system.throttle[reason] ?? reason).join(", "))}</p>}
      <p className="mt-2 flex flex-wrap gap-x-3 text-soft">
        {holders.length === 0 && !gpu.foreign?.length && t.system.unheld}
        {holders.map((run) => (
          <span key={run}>
            {t.system.heldBy}{" "}
            <Link to={`/runs/${run}`} className="font-mono text-accent underline-offset-2 hover:underline">
              {run}
            </Link>
          </span>
        ))}
        {gpu.foreign?.map(({ pid, name, memory_bytes }) => (
          <span key={pid} className="text-warn">
            {t.system.foreign(name || "?", pid)}
            {memory_bytes != null && ` (${bytes(memory_bytes)})`}
          </span>
        ))}
      </p>
    </div>
  );
}

/** `calm`: full is good (a busy GPU); otherwise nearly full is a warning. */
function Gauge({ label, share, value, detail, calm = false }: { label: string; share: number | null; value: string; detail?: string; calm?: boolean }) {
  const tone = calm || share === null || share < 0.85 ? "bg-accent" : share < 0.95 ? "bg-warn" : "bg-bad";
  return (
    <div className="min-w-0">
      <div className="flex items-baseline justify-between gap-2">
        <span className="text-soft">{label}</span>
        <span className="font-medium">{value}</span>
      </div>
      <Bar share={share} label={label} tone={tone} className="my-1" />
      {detail && <span className="text-xs text-soft">{detail}</span>}
    </div>
  );
}

function ratio(part: number, whole: number): number {
  return whole > 0 ? part / whole : 0;
}
