/** What a run says while it works: log, metrics and state, first from the store, then live. */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { FAST_MS, getLog, getLogBounds, getMetrics } from "../api/queries";
import type { MetricItem, Run } from "../api/types";
import { FIRST_BYTES, LogWindow } from "./logWindow";
import { SeriesStore } from "./seriesStore";
import { type Frame, LiveConnection, type Status } from "./socket";

/** What came is drawn no more often than that, and for no more than half of the time: a trainer may write a thousand
 *  lines a second. */
const PUBLISH_MS = 40;
/** A frame after a pause waits this long for its company: a step's line and its numbers come one after the other. */
const GATHER_MS = 10;

export type RunFeed = {
  status: Status;
  /** Of a long log the end at first. */
  log: LogWindow;
  metrics: SeriesStore;
  /** Changes whenever log or metrics did. */
  tick: number;
  loaded: boolean;
  /** How far the log had been written when the page asked: what is missing of that is on its way. */
  written: number;
};

export function useRunFeed(runId: string): RunFeed {
  const client = useQueryClient();
  const [feed, setFeed] = useState<RunFeed>(empty);

  useEffect(() => {
    let connection: LiveConnection | undefined;
    let gone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    /** When the next picture may be, and when the run was last asked for. */
    let [next, asked] = [0, performance.now()];
    let current = empty();
    /** Not yet shown. */
    let news: News | null = null;
    setFeed(current);

    const publish = (change: Partial<RunFeed> = {}) => {
      current = { ...current, ...change, tick: current.tick + 1 };
      timer ??= setTimeout(show, Math.max(GATHER_MS, next - performance.now()));
    };
    const show = () => {
      clearTimeout(timer);
      timer = undefined;
      const began = performance.now();
      next = began + PUBLISH_MS;
      tell();
      setFeed(current);
      setTimeout(() => (next = Math.max(next, 2 * performance.now() - began))); // it is drawn by then
    };
    /** The run hears of its steps. */
    const tell = () => {
      if (news === null) return;
      const { step, values } = news;
      news = null;
      client.setQueryData<Run>(["run", runId], (run) => run && { ...run, step: step ?? run.step ?? null, summary: { ...run.summary, ...values } });
      // that puts off when it is asked for the next time, for ever while steps are quick
      if (performance.now() - asked < FAST_MS) return;
      asked = performance.now();
      void client.invalidateQueries({ queryKey: ["run", runId], exact: true });
    };
    /** Somebody waits for what was fetched. */
    const fetched = () => {
      if (gone) return;
      publish();
      show();
    };

    const receive = (message: Frame) => {
      const items = (message["items"] ?? []) as unknown[];
      if (message.op === "batch" && message.channel === "log")
        current.log.receive(message["first"] as number, message["last"] as number, (items as { text: string }[]).map(({ text }) => text).join(""));
      else if (message.op === "gap" && message.channel === "log") current.log.skip(message["to"] as number);
      else if (message.op === "batch" && message.channel === "metric")
        for (const item of items as MetricItem[]) {
          current.metrics.add(item);
          news = newer(news, item);
        }
      else if (message.op === "rewind") current.metrics.rewind(message["step"] as number);
      if (message.op === "state") {
        client.setQueryData(["run", runId], message["run"] as Run);
        news = null; // it is newer, and asked for again below
      }
      if (message.op === "state" || message.op === "end") {
        // what hangs on the run: checkpoints, samples, attempts, its pipeline
        void client.invalidateQueries({ queryKey: ["run", runId] });
        void client.invalidateQueries({ queryKey: ["pipeline"] });
        void client.invalidateQueries({ queryKey: ["evaluations"] });
      }
      publish();
    };

    const start = async () => {
      const [metrics, bounds] = await Promise.all([getMetrics(runId), getLogBounds(runId)]);
      if (gone) return;
      const after = Math.max(bounds.start, bounds.end - FIRST_BYTES);
      const read = (from: number, to: number) => getLog(runId, from, to);
      publish({
        metrics: new SeriesStore(metrics.series),
        log: new LogWindow(read, fetched, bounds.start, after),
        loaded: true,
        written: bounds.end,
      });
      connection = new LiveConnection({
        path: `/runs/${runId}/stream`,
        cursors: { log: after, metric: metrics.last, state: 0 },
        onFrame: receive,
        onStatus: (status) => publish({ status }),
      });
    };

    let wait: ReturnType<typeof setTimeout>;
    const tryToStart = (delayMs: number) => {
      start().catch(() => {
        if (gone) return;
        publish({ status: "reconnecting" });
        wait = setTimeout(() => tryToStart(Math.min(10_000, delayMs * 2)), delayMs);
      });
    };
    tryToStart(500);

    return () => {
      gone = true;
      clearTimeout(wait);
      clearTimeout(timer);
      tell();
      connection?.close();
    };
  }, [runId, client]);

  return feed;
}

/** How far a run is, by its metric events: its state comes by frame, its step and its last values do not. */
type News = { step: number | null; values: Record<string, number> };

function newer(news: News | null, { step, values }: MetricItem): News {
  const known = Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== null);
  return { step: step ?? news?.step ?? null, values: { ...news?.values, ...Object.fromEntries(known) } };
}

const NO_LOG = new LogWindow(() => Promise.resolve({ text: "", last: 0 }), () => undefined);

function empty(): RunFeed {
  return { status: "connecting", log: NO_LOG, metrics: new SeriesStore(), tick: 0, loaded: false, written: 0 };
}
