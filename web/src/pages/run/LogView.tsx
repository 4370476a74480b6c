/** A log as it grows: only the lines in sight are in the page, colours are spans, everything is text. */
import { type KeyboardEvent, memo, useDeferredValue, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { spans } from "../../lib/ansi";
import { has, LogSearch } from "../../lib/search";
import type { RunFeed } from "../../live/runFeed";
import { t } from "../../texts";
import { Button, Empty } from "../../ui/basics";

const ROW_PX = 19;
const OVERSCAN = 20;
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
  const wanted = useDeferredValue(query.trim().toLowerCase());
  const count = log.lines.length;
  const full = count * ROW_PX;
  const drawn = Math.min(full, MOST_PX);
  /** Pixels of text for each one of the scroll bar. */
  const gear = drawn === full ? 1 : (full - height) / (drawn - height);
  const search = useMemo(() => (wanted ? new LogSearch(log, wanted) : null), [log, wanted]);
  // the buffer is changed in place; its version tells when
  // eslint-disable-next-line react-hooks/exhaustive-deps
  const matches = useMemo(() => search?.look() ?? [], [search, log.version]);

  useLayoutEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [follow, log.version, log, height]);

  const base = useRef(log.base);
  useLayoutEffect(() => {
    // lines that were put in front, or fell off there, must not move what is being read
    const came = base.current - log.base;
    base.current = log.base;
    if (came && !follow && box.current) box.current.scrollTop += (came * ROW_PX) / gear;
  }, [log, log.base, follow, gear]);

  const show = (index: number) => {
    const line = matches[index];
    if (line === undefined) return;
    setFollow(false);
    setCurrent(index);
    box.current?.scrollTo({ top: Math.max(0, (line - log.base) * ROW_PX - height / 2) / gear });
  };
  const step = (by: number) => show((current + by + matches.length) % matches.length);
  useEffect(() => {
    if (wanted) show(matches.length - 1);
    // a new question jumps to its last match; new lines must not move the reader
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [wanted]);

  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Enter" && matches.length) step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") setQuery("");
  };
  const onScroll = () => {
    const element = box.current;
    if (!element) return;
    setTop(element.scrollTop);
    const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < ROW_PX * 2;
    if (atEnd !== follow) setFollow(atEnd);
  };

  const textTop = top * gear;
  const first = Math.max(0, Math.floor(textTop / ROW_PX) - OVERSCAN);
  const last = Math.min(count, Math.ceil((textTop + height) / ROW_PX) + OVERSCAN);
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
              <span role="status">{t.run.matches(Math.min(current + 1, matches.length), matches.length)}</span>
              <Button look="bare" aria-label={t.run.previous} disabled={!matches.length} onClick={() => step(-1)}>
                ↑
              </Button>
              <Button look="bare" aria-label={t.run.next} disabled={!matches.length} onClick={() => step(1)}>
                ↓
              </Button>
            </span>
          )}
          {feed.earlier && <Earlier load={feed.earlier} onLoad={() => setFollow(false)} />}
          <label className="ml-auto flex items-center gap-1.5 text-soft">
            <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} />
            {t.run.follow}
          </label>
          <a className="text-accent underline-offset-2 hover:underline" href={`/runs/${encodeURIComponent(runId)}/logs?format=text`} download={`${runId}.log`}>
            {t.run.download}
          </a>
        </div>
      )}
      {count === 0 ? (
        <div style={{ height: feed.loaded ? undefined : height }}>
          <Empty>{feed.loaded ? t.run.noLog : t.app.loading}</Empty>
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
            <div style={{ transform: `translateY(${first * ROW_PX - textTop + top}px)` }}>
              {log.lines.slice(first, last).map((line, i) => (
                <LogLine key={log.base + first + i} line={line} wanted={wanted} current={matches[current] === log.base + first + i} />
              ))}
            </div>
          </div>
        </div>
      )}
    </div>
  );
}

function Earlier({ load, onLoad }: { load: () => Promise<void>; onLoad: () => void }) {
  const [busy, setBusy] = useState(false);
  const start = () => {
    setBusy(true);
    onLoad();
    // a piece that does not come leaves the button to try again
    void load().catch(() => undefined).finally(() => setBusy(false));
  };
  return (
    <Button look="bare" disabled={busy} onClick={start}>
      {busy ? t.app.loading : t.run.earlier}
    </Button>
  );
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
