/** Runs as a table; on a phone, as a list of short cards. Only what is near the window is in the page. */
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useLayoutEffect, useRef, useState } from "react";
import type { Run } from "../../api/types";
import { hasEnded, isLive } from "../../api/types";
import { ago, compact, duration, moment, number, seconds } from "../../lib/format";
import { latestLoss, progress, secondsLeft, steps } from "../../lib/runs";
import type { Column, Sort } from "../../lib/sorting";
import { Link } from "../../router";
import { t } from "../../texts";
import { Bar, StateBadge } from "../../ui/basics";
import { useMedia } from "../../ui/useMedia";
import { Sparkline } from "./Sparkline";

const ROW_PX = 52;
const CARD_PX = 96;

/** What a list is given that can be sorted, walked through and chosen from. */
export type Tools = {
  sort: Sort;
  onSort: (column: Column) => void;
  current: number;
  chosen: ReadonlySet<string>;
  onChoose: (id: string) => void;
  onTag: (tag: string) => void;
  onEnd: () => void;
};

export function RunRows({ runs, tools }: { runs: readonly Run[]; tools?: Tools }) {
  const wide = useMedia("(min-width: 800px)");
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  // where the list begins in the page, for a window that scrolls
  useLayoutEffect(() => setTop((box.current?.getBoundingClientRect().top ?? 0) + scrollY), [wide]);
  const height = wide ? ROW_PX : CARD_PX;
  const rows = useWindowVirtualizer({ count: runs.length, estimateSize: () => height, overscan: 6, scrollMargin: top });
  useEffect(() => rows.measure(), [height, rows]);
  const current = tools?.current ?? -1;
  useEffect(() => {
    if (current >= 0) rows.scrollToIndex(current, { align: "auto" });
  }, [current, rows]);

  const seen = rows.getVirtualItems();
  const last = seen.at(-1)?.index ?? 0;
  useEffect(() => {
    if (last >= runs.length - 20) tools?.onEnd();
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [last, runs.length]);
  const before = (seen[0]?.start ?? top) - top;
  const after = rows.getTotalSize() - ((seen.at(-1)?.end ?? top) - top);
  const shown = seen.map(({ index }) => ({ index, run: runs[index] as Run })).filter(({ run }) => run);
  return (
    <div ref={box}>
      {wide ? (
        <table className="w-full table-fixed text-left" aria-rowcount={runs.length + 1}>
          <thead className="text-xs text-soft">
            <tr className="border-b border-line [&>th]:px-3 [&>th]:py-2 [&>th]:font-medium">
              {tools && <th scope="col" className="w-10"><span className="sr-only">{t.runs.choose}</span></th>}
              <Head column="state" tools={tools} className="w-32">{t.runs.state}</Head>
              <Head column="name" tools={tools}>{t.runs.name}</Head>
              <Head column="stage" tools={tools} className="w-40">{t.runs.stage}</Head>
              <Head column="loss" tools={tools} className="w-22 text-right lg:w-38 lg:text-left">{t.runs.loss}</Head>
              <Head column="progress" tools={tools} className="w-40">{t.runs.progress}</Head>
              <th scope="col" className="hidden w-24 text-right lg:table-cell">{t.runs.left}</th>
              <Head column="speed" tools={tools} className="hidden w-22 text-right lg:table-cell">{t.runs.speed}</Head>
              <th scope="col" className="hidden w-14 text-right xl:table-cell">{t.runs.gpu}</th>
              <Head column="created" tools={tools} className="w-26 text-right">{t.runs.created}</Head>
            </tr>
          </thead>
          <tbody>
            <Space height={before} />
            {shown.map(({ index, run }) => (
              <Row key={run.id} run={run} index={index} tools={tools} />
            ))}
            <Space height={after} />
          </tbody>
        </table>
      ) : (
        <ul className="divide-y divide-line">
          <li aria-hidden style={{ height: before }} className="border-0" />
          {shown.map(({ run }) => (
            <PhoneRow key={run.id} run={run} />
          ))}
          <li aria-hidden style={{ height: after }} className="border-0" />
        </ul>
      )}
    </div>
  );
}

function Space({ height }: { height: number }) {
  return height > 0 ? <tr aria-hidden style={{ height }} /> : null;
}

function Head({ column, tools, className = "", children }: { column: Column; tools: Tools | undefined; className?: string; children: ReactNode }) {
  const sort = tools?.sort.column === column ? (tools.sort.up ? "ascending" : "descending") : undefined;
  return (
    <th scope="col" className={className} aria-sort={sort}>
      {tools ? (
        <button type="button" className="font-medium hover:text-ink" onClick={() => tools.onSort(column)}>
          {children}
          <span aria-hidden>{sort ? (tools.sort.up ? " ↑" : " ↓") : ""}</span>
        </button>
      ) : (
        children
      )}
    </th>
  );
}

function Row({ run, index, tools }: { run: Run; index: number; tools: Tools | undefined }) {
  const current = tools?.current === index;
  const live = isLive(run.state);
  return (
    <tr
      aria-rowindex={index + 2}
      style={{ height: ROW_PX }}
      className={`border-b border-line last:border-0 hover:bg-well/60 [&>td]:overflow-hidden [&>td]:px-3 ${current ? "bg-well shadow-[inset_3px_0_0_var(--accent)]" : ""}`}
    >
      {tools && (
        <td>
          <input type="checkbox" aria-label={t.runs.chooseOne(run.name)} checked={tools.chosen.has(run.id)} onChange={() => tools.onChoose(run.id)} />
        </td>
      )}
      <td>
        <StateBadge state={run.state} />
      </td>
      <td>
        <span className="flex min-w-0 items-baseline gap-2">
          <RunName run={run} />
          {run.tags.map((tag) => (
            <button key={tag} type="button" disabled={!tools} onClick={() => tools?.onTag(tag)} className="shrink-0 rounded bg-well px-1.5 text-xs text-soft hover:text-ink">
              {tag}
            </button>
          ))}
        </span>
        <Why run={run} />
      </td>
      <td className="truncate" title={run.preset ?? undefined}>
        {run.stage}
        {run.preset && <span className="block truncate text-xs text-soft">{run.preset}</span>}
      </td>
      <td>
        <span className="flex items-center justify-end gap-2 lg:justify-between">
          <span className="hidden lg:block">
            <Sparkline run={run} />
          </span>
          {number(latestLoss(run))}
        </span>
      </td>
      <td>
        <Steps run={run} />
      </td>
      <td className="hidden text-right whitespace-nowrap text-soft lg:table-cell">{duration(live ? secondsLeft(run) : run.ended_at ? seconds(run.started_at, run.ended_at) : null)}</td>
      <td className="hidden text-right lg:table-cell">{compact(run.summary["train/tok_per_sec"])}</td>
      <td className="hidden text-right xl:table-cell">{run.gpus === 0 ? t.run.cpu : run.gpus}</td>
      <td className="text-right whitespace-nowrap text-soft" title={moment(run.created_at)}>
        {ago(run.created_at)}
      </td>
    </tr>
  );
}

function PhoneRow({ run }: { run: Run }) {
  return (
    <li style={{ height: CARD_PX }} className="flex flex-col justify-center gap-1 overflow-hidden px-4">
      <div className="flex items-baseline justify-between gap-3">
        <RunName run={run} />
        <StateBadge state={run.state} />
      </div>
      <div className="flex justify-between gap-3 text-xs text-soft">
        <span className="truncate">
          {[run.stage, run.preset].filter(Boolean).join(" · ")}
          {latestLoss(run) !== undefined && ` · ${t.runs.loss.toLowerCase()} ${number(latestLoss(run))}`}
        </span>
        <span className="whitespace-nowrap">{ago(run.created_at)}</span>
      </div>
      <Steps run={run} />
      <Why run={run} />
    </li>
  );
}

function RunName({ run }: { run: Run }) {
  return (
    <Link to={`/runs/${run.id}`} className="block min-w-0 truncate font-medium text-accent underline-offset-2 hover:underline">
      {run.name}
    </Link>
  );
}

function Steps({ run }: { run: Run }) {
  const share = progress(run);
  if (run.step == null && share === null) return null;
  const tone = run.state === "failed" ? "bg-bad" : run.state === "succeeded" ? "bg-good" : hasEnded(run.state) ? "bg-soft" : "bg-accent";
  return (
    <div className="flex items-center gap-2">
      <Bar share={share} label={t.runs.progress} tone={tone} className="min-w-8 flex-1" />
      {run.step != null && <span className="text-xs whitespace-nowrap text-soft">{steps(run)}</span>}
    </div>
  );
}

/** Why it waits or how it failed, on a line of its own; all of it is on the run's page. */
function Why({ run }: { run: Run }) {
  const failed = run.state === "failed" && run.reason ? (run.message ?? t.reason[run.reason]) : null;
  const hint = run.blocked?.preset && !run.blocked.message.includes(run.blocked.preset) ? ` ${t.runs.tryPreset(run.blocked.preset)}` : "";
  const text = run.blocked ? run.blocked.message + hint : failed;
  if (!text) return null;
  return (
    <p title={text} className={`truncate text-xs ${run.blocked ? "text-warn" : "text-bad"}`}>
      {text}
    </p>
  );
}
