/** A log as it grows: only the lines in sight are in the page, of a long log only some are in the browser. Colours are
 *  spans, everything is text. What is not held stands in the scroll bar as so many lines as its bytes may be. */
import { type KeyboardEvent, memo, useDeferredValue, useEffect, useLayoutEffect, useRef, useState } from "react";
import { spans } from "../../lib/ansi";
import { has } from "../../lib/search";
import type { LogWindow } from "../../live/logWindow";
import type { RunFeed } from "../../live/runFeed";
import { t } from "../../texts";
import { Button, Empty } from "../../ui/basics";
import { useLogSearch } from "./useLogSearch";

const ROW_PX = 19;
const OVERSCAN = 20;
/** Of the box, above and below the lines. */
const PADDING_PX = 16;
/** With fewer lines left in the direction of reading, more are fetched. */
const NEAR = 500;
/** Browsers draw no box that is much higher (Firefox: 17.8 million); beyond, a pixel of the scroll bar is more than
 *  a pixel of text. */
const MOST_PX = 15_000_000;

type Props = { feed: RunFeed; runId: string; height: number; compact?: boolean };

export function LogView({ feed, runId, height, compact = false }: Props) {
  const { log } = feed;
  const box = useRef<HTMLDivElement>(null);
  const [follow, setFollow] = useState(true);
  const [top, setTop] = useState(0);
  const [query, setQuery] = useState("");
  const [current, setCurrent] = useState(0);
  const [marked, setMarked] = useState<{ opened: number; line: number } | null>(null);
  const wanted = useDeferredValue(query.trim().toLowerCase());
  const matches = useLogSearch(runId, log, wanted);

  const rows = useRows(log);
  const full = rows.total * ROW_PX;
  const drawn = Math.min(full, MOST_PX);
  /** Pixels of text for each one of the scroll bar. */
  const gear = drawn === full ? 1 : (full + PADDING_PX - height) / (drawn + PADDING_PX - height);
  /** What is read, in pixels of text: it stays when lines come in front, and when the gear changes. */
  const drawnOf = { log, opened: log.opened, origin: rows.origin };
  const reading = useRef({ ...drawnOf, px: 0 });

  const scroll = (px: number) => {
    if (!box.current) return;
    box.current.scrollTop = px / gear;
    const reached = box.current.scrollTop * gear;
    reading.current = { ...drawnOf, px: Math.abs(reached - px) > gear ? reached : px };
    setTop(box.current.scrollTop);
  };

  useLayoutEffect(() => {
    if (!box.current) return;
    const before = reading.current;
    if (follow) {
      box.current.scrollTop = box.current.scrollHeight;
      reading.current = { ...drawnOf, px: box.current.scrollTop * gear };
      return;
    }
    const same = before.log === log && before.opened === log.opened;
    const px = Math.max(0, before.px + (same ? (rows.origin - before.origin) * ROW_PX : 0));
    if (Math.abs(px - box.current.scrollTop * gear) > gear || !same || rows.origin !== before.origin) scroll(px);
  });

  useEffect(() => {
    log.keep = !follow || wanted !== "";
    return () => {
      log.keep = false;
    };
  }, [log, follow, wanted]);

  /** What the log's end will be drawn from is on its way. */
  const coming = !feed.loaded || log.end < feed.written;
  const textTop = top * gear;
  const at = Math.floor(textTop / ROW_PX);
  const end = Math.ceil((textTop + height) / ROW_PX);
  useEffect(() => {
    if (coming || log.busy) return;
    if (follow) {
      // of very long lines what is held at first may not fill the box
      const short = log.to === log.end && log.from > log.start && rows.held * ROW_PX < height;
      return void (short ? log.earlier() : log.toEnd());
    }
    // `top` may be from before a jump that was made after this drawing
    const at = Math.floor(reading.current.px / ROW_PX);
    const end = Math.ceil((reading.current.px + height) / ROW_PX);
    if (end < rows.above || at > rows.above + rows.held) {
      // the scroll bar was taken to where nothing is held
      rows.aim(at);
      void log.open(rows.byteOf(at), false);
    } else if (at - rows.above < NEAR && log.from > log.start) void log.earlier();
    else if (rows.above + rows.held - end < NEAR && log.to < log.end) void log.later();
  });

  /** The match of that number, in the middle of the box. */
  const show = async (index: number) => {
    const match = matches.found[index];
    if (match === undefined) return;
    setFollow(false);
    setCurrent(index);
    if (!matches.byBytes) {
      setMarked({ opened: log.opened, line: match });
      return scroll(Math.max(0, (rows.origin + match) * ROW_PX - height / 2));
    }
    rows.aim(rows.rowOf(match));
    if (!(await log.open(match, true))) return;
    setFollow(false);
    setMarked({ opened: log.opened, line: 0 });
    // where line 0 is to stand is known once it is drawn
    reading.current = { log, opened: log.opened, origin: 0, px: -height / 2 };
  };
  const step = async (by: number) => {
    let count = matches.found.length;
    if (by > 0 && current === count - 1 && matches.more) count += await matches.more();
    void show((current + by + count) % count);
  };
  const answered = wanted !== "" && !matches.busy;
  const asked = useRef("");
  useEffect(() => {
    // a new question jumps to its last match, or to the first of more than are known; new lines must not move the reader
    if (wanted && !answered) return;
    if (asked.current !== wanted) void show(matches.more ? 0 : matches.found.length - 1);
    asked.current = wanted;
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [wanted, answered]);

  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Enter" && matches.found.length) void step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") setQuery("");
  };
  const onScroll = () => {
    const element = box.current;
    if (!element) return;
    setTop(element.scrollTop);
    // where a scroll bar stands is rounded: what only follows from that would add up
    const px = element.scrollTop * gear;
    if (Math.abs(px - reading.current.px) > gear) reading.current = { ...drawnOf, px };
    const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < ROW_PX * 2;
    if (atEnd !== follow) setFollow(atEnd);
  };

  const first = Math.max(0, at - OVERSCAN - rows.above);
  const last = Math.max(first, Math.min(rows.held, end + OVERSCAN - rows.above));
  const count = matches.found.length;
  return (
    <div>
      {!compact && (
        <div className="flex flex-wrap items-center gap-x-3 gap-y-2 border-b border-line px-4 py-2">
          <input
            type="search"
            className="field w-full sm:w-56"
            placeholder={t.run.search}
            aria-label={t.run.search}
            value={query}
            onChange={(event) => setQuery(event.target.value)}
            onKeyDown={onKey}
          />
          {wanted && (
            <span className="flex items-center gap-1 text-soft">
              <span role="status">{matches.busy ? t.run.searching : matches.again ? t.run.notSearched : t.run.matches(Math.min(current + 1, count), count, matches.more !== null)}</span>
              {matches.again && <Button look="bare" onClick={matches.again}>{t.app.retry}</Button>}
              <Button look="bare" aria-label={t.run.previous} disabled={!count} onClick={() => void step(-1)}>
                ↑
              </Button>
              <Button look="bare" aria-label={t.run.next} disabled={!count} onClick={() => void step(1)}>
                ↓
              </Button>
            </span>
          )}
          <label className="ml-auto flex items-center gap-1.5 text-soft">
            <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} />
            {t.run.follow}
          </label>
          <a className="text-accent underline-offset-2 hover:underline" href={`/runs/${encodeURIComponent(runId)}/logs?format=text`} download={`${runId}.log`}>
            {t.run.download}
          </a>
        </div>
      )}
      {rows.held === 0 ? (
        <div style={{ height: coming ? height : undefined }}>
          <Empty>{coming ? t.app.loading : t.run.noLog}</Empty>
        </div>
      ) : (
        <div
          ref={box}
          role="log"
          aria-label={t.run.log}
          aria-live="off"
          tabIndex={0}
          onScroll={onScroll}
          style={{ height: Math.min(height, full + 20), overflowAnchor: "none" }}
          className="overflow-auto py-2 font-mono text-xs outline-offset-[-2px]"
        >
          <div style={{ height: drawn, position: "relative", minWidth: "max-content" }}>
            <div style={{ transform: `translateY(${(rows.above + first) * ROW_PX - textTop + top}px)` }}>
              {log.lines.slice(first, last).map((line, i) => {
                const number = log.base + first + i;
                return <LogLine key={number} line={line} wanted={wanted} current={marked?.opened === log.opened && marked.line === number} />;
              })}
            </div>
          </div>
        </div>
      )}
    </div>
  );
}

/** Where lines stand: those held in the middle, above and below as many as there may be. */
function useRows(log: LogWindow) {
  /** The row of line 0, and the one that it is to have once the log has been opened elsewhere. */
  const place = useRef<{ log: LogWindow; opened: number; origin: number; aim: number | null }>({ log, opened: -1, origin: 0, aim: null });
  const held = log.lines.length;
  const bytes = Math.max(1, (log.to - log.from) / Math.max(1, held)); // of a line
  const likely = Math.round((log.from - log.start) / bytes);
  const now = place.current;
  if (now.log !== log || now.opened !== log.opened) {
    // without a line there is nothing to guess from
    place.current = { log, opened: held ? log.opened : -1, origin: now.log === log && now.aim !== null ? now.aim : likely - log.base, aim: null };
  }
  let origin = place.current.origin;
  // a guess gives way to what is known: the first line is at the top, and nothing else is
  if (log.from === log.start) origin = -log.base;
  else if (origin + log.base < 1) origin = Math.max(1, likely) - log.base;
  place.current.origin = origin;

  const above = origin + log.base;
  const below = log.to === log.end ? 0 : Math.max(1, Math.round((log.end - log.to) / bytes));
  return {
    origin,
    above,
    held,
    total: above + held + below,
    /** About where in the log a row stands that is not held, and the other way round. */
    byteOf: (row: number) =>
      Math.round(row < above ? log.start + (row / above) * (log.from - log.start) : log.to + Math.min(1, (row - above - held) / below) * (log.end - log.to)),
    rowOf: (byte: number) => Math.round((byte - log.start) / bytes),
    aim: (row: number) => {
      place.current.aim = row;
    },
  };
}

const LogLine = memo(function LogLine({ line, wanted, current }: { line: string; wanted: string; current: boolean }) {
  const hit = wanted !== "" && has(line, wanted);
  return (
    <div
      style={{ height: ROW_PX, lineHeight: `${ROW_PX}px` }}
      className={`px-4 whitespace-pre ${current ? "bg-accent/25" : hit ? "bg-accent/10" : ""}`}
    >
      {spans(line).map((span, i) => (
        <span key={i} className={span.style}>
          {span.text}
        </span>
      ))}
    </div>
  );
});
