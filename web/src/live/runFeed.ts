/** What a run says while it works: log, metrics and state, first from the store, then live. */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { getLog, getLogEnd, getMetrics } from "../api/queries";
import type { MetricItem, Run } from "../api/types";
import { LogBuffer } from "./logBuffer";
import { SeriesStore } from "./seriesStore";
import { type Frame, LiveConnection, type Status } from "./socket";

/** Of a long log only this much of its end is fetched, and as much again whenever earlier lines are asked for. */
const LOG_PIECE_BYTES = 1_000_000;
/** New frames show within this time, and no more often: a trainer may write a thousand lines a second. */
const PUBLISH_MS = 60;

export type RunFeed = {
  status: Status;
  log: LogBuffer;
  /** Fetches the lines before the first one held; null when that is the first of all. */
  earlier: (() => Promise<void>) | null;
  metrics: SeriesStore;
  /** Changes whenever log or metrics did. */
  tick: number;
  loaded: boolean;
};

export function useRunFeed(runId: string): RunFeed {
  const client = useQueryClient();
  const [feed, setFeed] = useState<RunFeed>(empty);

  useEffect(() => {
    let connection: LiveConnection | undefined;
    let gone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let current = empty();
    setFeed(current);

    const publish = (change: Partial<RunFeed> = {}) => {
      current = { ...current, ...change, tick: current.tick + 1 };
      timer ??= setTimeout(() => {
        timer = undefined;
        setFeed(current);
      }, PUBLISH_MS);
    };

    const receive = (message: Frame) => {
      const items = (message["items"] ?? []) as unknown[];
      if (message.op === "batch" && message.channel === "log")
        for (const item of items as { text: string }[]) current.log.append(item.text);
      else if (message.op === "batch" && message.channel === "metric")
        for (const item of items as MetricItem[]) {
          current.metrics.add(item);
          client.setQueryData<Run>(["run", runId], (run) => run && advanced(run, item));
        }
      else if (message.op === "rewind") current.metrics.rewind(message["step"] as number);
      if (message.op === "state") client.setQueryData(["run", runId], message["run"] as Run);
      if (message.op === "state" || message.op === "end") {
        // what hangs on the run: checkpoints, samples, attempts, its pipeline
        void client.invalidateQueries({ queryKey: ["run", runId] });
        void client.invalidateQueries({ queryKey: ["pipeline"] });
        void client.invalidateQueries({ queryKey: ["evaluations"] });
      }
      publish();
    };

    /** Bytes before `end` come in one piece, aligned by the buffer to whole lines. */
    const earlierThan = (end: number): RunFeed["earlier"] => {
      if (end === 0) return null;
      let asked: Promise<void> | undefined;
      return () =>
        (asked ??= (async () => {
          const from = Math.max(0, end - LOG_PIECE_BYTES);
          const text = await getLog(runId, from, end);
          if (gone) return;
          current.log.prepend(text, from === 0);
          publish({ earlier: earlierThan(from) });
        })().finally(() => (asked = undefined)));
    };

    const start = async () => {
      const [metrics, end] = await Promise.all([
        getMetrics(runId),
        getLogEnd(runId),
      ]);
      if (gone) return;
      const after = Math.max(0, end - LOG_PIECE_BYTES);
      publish({
        metrics: new SeriesStore(metrics.series),
        log: new LogBuffer(after > 0),
        earlier: earlierThan(after),
        loaded: true,
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
      connection?.close();
    };
  }, [runId, client]);

  return feed;
}

/** The run after one more metric event: its state comes by frame, its step does not. */
function advanced(run: Run, { step, values }: MetricItem): Run {
  const known = Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== null);
  return { ...run, step: step ?? run.step ?? null, summary: { ...run.summary, ...Object.fromEntries(known) } };
}

function empty(): RunFeed {
  return { status: "connecting", log: new LogBuffer(), earlier: null, metrics: new SeriesStore(), tick: 0, loaded: false };
}
