/** The state of the whole, live, into the query cache; lists of runs are refreshed along with it. */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import type { System } from "../api/types";
import { LiveConnection, type Status } from "./socket";

/** Mount once. */
export function useSystemFeed(): Status {
  const client = useQueryClient();
  const [status, setStatus] = useState<Status>("connecting");
  useEffect(() => {
    let beforeLists = "";
    const connection = new LiveConnection({
      path: "/system/stream",
      cursors: {},
      onStatus: setStatus,
      onFrame: (frame) => {
        const system = (frame["items"] as System[] | undefined)?.at(-1);
        if (frame.op !== "batch" || !system) return;
        client.setQueryData(["system"], system);
        const lists = JSON.stringify([system.queued, system.running, system.workers.map((worker) => worker.runs)]);
        // while something runs its step and loss move, so lists are refreshed with every frame
        if (lists === beforeLists && system.running === 0) return;
        beforeLists = lists;
        void client.invalidateQueries({ queryKey: ["runs"] });
        void client.invalidateQueries({ queryKey: ["pipelines"] });
      },
    });
    return () => connection.close();
  }, [client]);
  return status;
}
