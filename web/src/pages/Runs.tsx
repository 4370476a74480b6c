/** All runs: filter, sort, walk through them by keyboard, choose some to compare. */
import { useDeferredValue, useMemo, useRef, useState } from "react";
import { useStages } from "../api/queries";
import { may } from "../api/session";
import type { RunState } from "../api/types";
import { type Column, matching, NEWEST_FIRST, type Sort, sorted } from "../lib/sorting";
import { navigate, useRoute } from "../router";
import { t } from "../texts";
import { Button, Card, Empty, Failure, LinkButton, Page } from "../ui/basics";
import { useKeys } from "../ui/useKeys";
import { RunRows } from "./runs/RunRows";
import { ACTIVE, useRunList } from "./runs/useRunList";

export function RunsPage() {
  const { query } = useRoute();
  const [state, stage, tag] = [query.get("state") ?? "", query.get("stage") ?? "", query.get("tag") ?? ""];
  const [text, setText] = useState("");
  const [sort, setSort] = useState<Sort>(NEWEST_FIRST);
  const [current, setCurrent] = useState(-1);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const search = useRef<HTMLInputElement>(null);
  const wanted = useDeferredValue(text.trim());
  const states = state === "active" ? ACTIVE : state ? [state as RunState] : undefined;
  const whole = wanted !== "" || sort !== NEWEST_FIRST;
  const list = useRunList({ ...(stage && { stage }), ...(states && { state: states }), ...(tag && { tag }) }, whole);
  const rows = useMemo(() => sorted(matching(list.runs, wanted), sort), [list.runs, wanted, sort]);
  const stages = useStages();

  const filter = (change: Record<string, string>) => {
    const next = Object.entries({ state, stage, tag, ...change }).filter(([, value]) => value);
    setCurrent(-1);
    navigate(`/runs?${new URLSearchParams(next)}`, { replace: true });
  };
  const choose = (id: string) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    setChosen(next);
  };
  const onSort = (column: Column) => setSort(sort.column === column ? { column, up: !sort.up } : { column, up: column !== "created" });
  const compare = () => chosen.size > 0 && navigate(`/compare?runs=${[...chosen].join(",")}`);
  const at = Math.min(current, rows.length - 1); // a filter may have taken rows away
  const here = rows[at];
  useKeys({
    j: () => setCurrent(Math.min(rows.length - 1, at + 1)),
    k: () => setCurrent(Math.max(0, at - 1)),
    Enter: () => here && navigate(`/runs/${here.id}`),
    x: () => here && choose(here.id),
    c: compare,
    n: () => may("submit") && navigate("/runs/new"),
    "/": () => search.current?.focus(),
  });
  return (
    <Page
      title={t.runs.title}
      tools={
        <>
          <Button disabled={chosen.size === 0} onClick={compare}>
            {t.runs.compare(chosen.size)}
          </Button>
          {may("submit") && (
            <>
              <LinkButton to="/pipelines/new">{t.pipeline.create}</LinkButton>
              <LinkButton look="primary" to="/runs/new">
                {t.runs.create}
              </LinkButton>
            </>
          )}
        </>
      }
    >
      <div className="flex flex-wrap items-center gap-3">
        <input
          ref={search}
          type="search"
          className="field w-full sm:w-60"
          placeholder={t.runs.search}
          aria-label={t.runs.search}
          value={text}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter") return;
            search.current?.blur(); // the keys are commands again, and the next Enter opens the first match
            setCurrent(0);
          }}
        />
        <Filter label={t.runs.filterState} value={state} onChange={(value) => filter({ state: value })} options={[["active", t.runs.active], ...Object.entries(t.state)]} />
        <Filter label={t.runs.filterStage} value={stage} onChange={(value) => filter({ stage: value })} options={(stages.data?.items ?? []).map(({ name }) => [name, name])} />
        {tag && (
          <Button look="bare" onClick={() => filter({ tag: "" })}>
            {t.runs.tag} {tag} ✕
          </Button>
        )}
        <span className="ml-auto text-xs text-soft" role="status">
          {t.runs.count(rows.length, list.hasNextPage === true)}
        </span>
      </div>
      {list.error && <Failure error={list.error} again={() => void list.refetch()} />}
      {list.data && (
        <Card>
          {rows.length > 0 ? (
            <RunRows
              runs={rows}
              tools={{
                sort,
                onSort,
                current: at,
                chosen,
                onChoose: choose,
                onTag: (name) => filter({ tag: name }),
                onEnd: () => list.hasNextPage && !list.isFetchingNextPage && void list.fetchNextPage(),
              }}
            />
          ) : (
            <Empty>{state || stage || tag || wanted ? t.runs.none : t.runs.empty}</Empty>
          )}
        </Card>
      )}
      <p className="hidden text-xs text-soft sm:block">{t.runs.keys}</p>
    </Page>
  );
}

function Filter({ label, value, onChange, options }: { label: string; value: string; onChange: (value: string) => void; options: [value: string, label: string][] }) {
  return (
    <label className="flex items-center gap-2 text-soft">
      {label}
      <select className="field text-ink" value={value} onChange={(event) => onChange(event.target.value)}>
        <option value="">{t.runs.any}</option>
        {options.map(([option, text]) => (
          <option key={option} value={option}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}
