/** The few building blocks every page uses. */
import type { ButtonHTMLAttributes, ReactNode } from "react";
import type { RunState } from "../api/types";
import { Link } from "../router";
import { t } from "../texts";

const BUTTON =
  "inline-flex items-center justify-center gap-1.5 rounded-md border px-3 py-1.5 font-medium whitespace-nowrap no-underline disabled:opacity-50 disabled:cursor-not-allowed";
const LOOKS = {
  primary: `${BUTTON} border-transparent bg-accent text-on-accent hover:brightness-110`,
  quiet: `${BUTTON} border-line bg-card text-ink hover:bg-well`,
  danger: `${BUTTON} border-line bg-card text-bad hover:bg-well`,
  bare: "inline-flex items-center justify-center rounded-md px-2 py-1 text-soft hover:bg-well hover:text-ink disabled:opacity-40",
} as const;

type Look = keyof typeof LOOKS;

export function Button({ look = "quiet", className = "", ...rest }: { look?: Look } & ButtonHTMLAttributes<HTMLButtonElement>) {
  return <button type="button" className={`${LOOKS[look]} ${className}`} {...rest} />;
}

export function LinkButton({ to, look = "quiet", className = "", children }: { to: string; look?: Look; className?: string; children: ReactNode }) {
  return (
    <Link to={to} className={`${LOOKS[look]} ${className}`}>
      {children}
    </Link>
  );
}

export function Card({ title, tools, children, className = "" }: { title?: ReactNode; tools?: ReactNode; children: ReactNode; className?: string }) {
  return (
    <section className={`min-w-0 rounded-lg border border-line bg-card ${className}`}>
      {(title || tools) && (
        <header className="flex flex-wrap items-center justify-between gap-x-4 gap-y-1 border-b border-line px-4 py-2">
          <h2>{title}</h2>
          {tools && <div className="flex flex-wrap items-center gap-3">{tools}</div>}
        </header>
      )}
      {children}
    </section>
  );
}

const STATE_LOOKS: Record<RunState, string> = {
  waiting: "text-soft",
  queued: "text-warn",
  starting: "text-accent",
  running: "text-accent",
  stopping: "text-warn",
  lost: "text-bad",
  paused: "text-soft",
  succeeded: "text-good",
  failed: "text-bad",
  cancelled: "text-soft",
};
const BUSY: readonly RunState[] = ["starting", "running", "stopping"];

export function StateBadge({ state }: { state: RunState }) {
  const shape = state === "succeeded" || state === "failed" || state === "cancelled" ? "rounded-full" : "rounded-[2px]";
  return (
    <span className={`inline-flex items-center gap-1.5 font-medium whitespace-nowrap ${STATE_LOOKS[state]}`}>
      <span aria-hidden className={`size-2 ${shape} bg-current ${BUSY.includes(state) ? "motion-safe:animate-pulse" : ""}`} />
      {t.state[state]}
    </span>
  );
}

/** A bar for a known share (0…1), or an empty track for an unknown one. */
export function Bar({ share, label, tone = "bg-accent", className = "" }: { share: number | null; label: string; tone?: string; className?: string }) {
  const percent = share === null ? undefined : Math.round(Math.min(1, Math.max(0, share)) * 1000) / 10;
  return (
    <div
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
      className={`h-1.5 overflow-hidden rounded-full bg-well ${className}`}
    >
      <div className={`h-full rounded-full transition-[width] duration-500 motion-reduce:transition-none ${tone}`} style={{ width: `${percent ?? 0}%` }} />
    </div>
  );
}

/** Label above value; for rows of facts. */
export function Fact({ label, children, title }: { label: string; children: ReactNode; title?: string }) {
  return (
    <div className="min-w-0" title={title}>
      <dt className="text-xs text-soft">{label}</dt>
      <dd className="truncate text-[1.05rem] font-medium">{children}</dd>
    </div>
  );
}

export function Note({ tone = "soft", children }: { tone?: "soft" | "warn" | "bad"; children: ReactNode }) {
  const looks = { soft: "border-line text-soft", warn: "border-warn/50 text-ink", bad: "border-bad/50 text-ink" };
  return (
    <div role={tone === "bad" ? "alert" : undefined} className={`rounded-md border bg-card px-3 py-2 ${looks[tone]}`}>
      {children}
    </div>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="px-4 py-6 text-center text-soft">{children}</p>;
}

/** A message for whatever was thrown, with a way to go on. */
export function Failure({ error, again }: { error: unknown; again?: () => void }) {
  return (
    <Note tone="bad">
      <div className="flex flex-wrap items-center justify-between gap-2">
        <span>{error instanceof TypeError ? t.app.offline : error instanceof Error ? error.message : String(error)}</span>
        {again && <Button onClick={again}>{t.app.retry}</Button>}
      </div>
    </Note>
  );
}

export function Page({ title, tools, children }: { title: ReactNode; tools?: ReactNode; children: ReactNode }) {
  return (
    <div className="flex flex-col gap-4">
      <div className="flex flex-wrap items-center justify-between gap-3">
        <h1 className="min-w-0 break-words">{title}</h1>
        {tools && <div className="flex flex-wrap items-center gap-3">{tools}</div>}
      </div>
      {children}
    </div>
  );
}

export function LiveDot({ status }: { status: "connecting" | "live" | "reconnecting" | "ended" }) {
  const looks = { live: "text-good", connecting: "text-soft", reconnecting: "text-warn", ended: "text-soft" };
  return (
    <span role="status" className={`inline-flex items-center gap-1.5 text-xs ${looks[status]}`}>
      <span aria-hidden className={`size-1.5 rounded-full bg-current ${status === "reconnecting" ? "motion-safe:animate-pulse" : ""}`} />
      {t.app[status]}
    </span>
  );
}
