/** All runs that match, page by page, with what changes while one looks: the newest and the active ones are asked
 *  for again whenever the service says that something moved. */
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useRef } from "react";
import { api, unwrap } from "../../api/client";
import { useRuns } from "../../api/queries";
import type { Run, RunState } from "../../api/types";

export const ACTIVE: RunState[] = ["waiting", "queued", "starting", "running", "stopping", "lost", "paused"];
const PAGE = 200; // the most the service gives

export type ListFilter = { stage?: string; state?: RunState[]; tag?: string };

/** `whole`: the other pages come by themselves, because a person sorts or searches all of them. */
export function useRunList(filter: ListFilter, whole: boolean) {
  const client = useQueryClient();
  const pages = useInfiniteQuery({
    queryKey: ["run-pages", filter],
    initialPageParam: "",
    queryFn: async ({ pageParam }) => {
      const query = { limit: PAGE, ...filter, ...(pageParam && { cursor: pageParam }) };
      const page = await unwrap(api.GET("/runs", { params: { query } }));
      // ten thousand configurations are 30 MB that no row shows
      return { ...page, items: page.items.map((run) => ({ ...run, config: {} })) };
    },
    getNextPageParam: ({ next_cursor }) => next_cursor ?? undefined,
    staleTime: Infinity,
  });
  const newest = useRuns({ ...filter, limit: 30 }).data?.items;
  const active = useRuns({ state: ACTIVE, limit: PAGE }).data?.items;

  const known = useRef<string[]>([]);
  useEffect(() => {
    if (!active) return;
    const ids = active.map(({ id }) => id);
    // one that is no longer active has ended: its row is in some page
    if (known.current.some((id) => !ids.includes(id))) void client.invalidateQueries({ queryKey: ["run-pages"] });
    known.current = ids;
  }, [active, client]);

  const { hasNextPage, isFetchingNextPage, fetchNextPage } = pages;
  useEffect(() => {
    if (whole && hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [whole, hasNextPage, isFetchingNextPage, fetchNextPage, pages.data]);

  const runs = useMemo(() => {
    const found = new Map<string, Run>();
    for (const run of newest ?? []) found.set(run.id, run);
    for (const run of pages.data?.pages.flatMap(({ items }) => items) ?? []) if (!found.has(run.id)) found.set(run.id, run);
    for (const run of active ?? []) if (found.has(run.id)) found.set(run.id, run);
    return [...found.values()];
  }, [pages.data, newest, active]);

  return { ...pages, runs };
}
