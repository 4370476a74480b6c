/** The state of the whole, live, into the query cache; lists of runs are refreshed along with it. */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import type { System } from "../api/types";
import { LiveConnection, type Status } from "./socket";

/** Lists are asked for again no more often than this: the state comes with every beat of every worker. */
const LISTS_MS = 2000;

/** Mount once. */
export function useSystemFeed(): Status {
  const client = useQueryClient();
  const [status, setStatus] = useState<Status>("connecting");
  useEffect(() => {
    let beforeLists = "";
    let timer: ReturnType<typeof setTimeout> | undefined;
    const refresh = () => {
      timer = undefined;
      void client.invalidateQueries({ queryKey: ["runs"] });
      void client.invalidateQueries({ queryKey: ["pipelines"] });
    };
    const connection = new LiveConnection({
      path: "/system/stream",
      cursors: {},
      onStatus: setStatus,
      onFrame: (frame) => {
        const system = (frame["items"] as System[] | undefined)?.at(-1);
        if (frame.op !== "batch" || !system) return;
        client.setQueryData(["system"], system);
        const lists = JSON.stringify([system.queued, system.running, system.workers.map((worker) => worker.runs)]);
        // while something runs its step and loss move, so lists are refreshed without another change
        if (lists === beforeLists && system.running === 0) return;
        beforeLists = lists;
        timer ??= setTimeout(refresh, LISTS_MS);
      },
    });
    return () => {
      clearTimeout(timer);
      connection.close();
    };
  }, [client]);
  return status;
}
