/** Any runs over each other: curves, in what they were told different things, and what came out. */
import { useQueries } from "@tanstack/react-query";
import { useState } from "react";
import { getRun, useRunChoices } from "../api/queries";
import type { Run } from "../api/types";
import { differences } from "../lib/configs";
import { Link, navigate } from "../router";
import { t } from "../texts";
import { Button, Card, Empty, Page, StateBadge } from "../ui/basics";
import { Overlay } from "./compare/Overlay";
import { COLOURS } from "./compare/colours";
import { Results } from "./compare/Results";
import { Differences } from "./run/ConfigCard";

export function ComparePage({ query }: { query: URLSearchParams }) {
  const ids = [...new Set((query.get("runs") ?? "").split(",").filter(Boolean))].slice(0, COLOURS.length);
  const found = useQueries({ queries: ids.map((id) => ({ queryKey: ["run", id], queryFn: () => getRun(id), refetchInterval: 15_000 })) });
  const runs = found.flatMap(({ data }) => (data ? [data] : [])).map(told);
  const show = (next: string[]) => navigate(`/compare?runs=${next.join(",")}`, { replace: true });
  const config = differences(runs);
  return (
    <Page title={t.compare.title}>
      <Card>
        <ul className="divide-y divide-line">
          {runs.map((run, i) => (
            <li key={run.id} className="flex flex-wrap items-center gap-x-4 gap-y-1 px-4 py-2">
              <span aria-hidden className="h-1 w-5 rounded" style={{ background: `var(${COLOURS[i]})` }} />
              <Link to={`/runs/${run.id}`} className="font-medium text-accent underline-offset-2 hover:underline">
                {run.name}
              </Link>
              <span className="text-soft">{run.stage}</span>
              <StateBadge state={run.state} />
              <Button look="bare" className="ml-auto" aria-label={t.compare.remove(run.name)} onClick={() => show(ids.filter((id) => id !== run.id))}>
                ✕
              </Button>
            </li>
          ))}
          <li className="px-4 py-2">
            <Add ids={ids} onAdd={(id) => show([...ids, id])} />
          </li>
        </ul>
      </Card>
      {runs.length === 0 ? (
        <Empty>{t.compare.hint}</Empty>
      ) : (
        <>
          <Overlay runs={runs} />
          <Results runs={runs} />
          {runs.length > 1 && (
            <Card title={t.compare.config}>
              {config.length > 0 ? <Differences found={config} names={runs.map(({ name }) => name)} /> : <Empty>{t.run.same}</Empty>}
            </Card>
          )}
        </>
      )}
    </Page>
  );
}

/** Runs of the same name carry their ids, so that they can be told apart. */
function told(run: Run, _: number, all: readonly Run[]): Run {
  return all.some(({ id, name }) => name === run.name && id !== run.id) ? { ...run, name: `${run.name} ${run.id}` } : run;
}

function Add({ ids, onAdd }: { ids: readonly string[]; onAdd: (id: string) => void }) {
  const others = (useRunChoices({ limit: 200 }).data?.items ?? []).filter(({ id }) => !ids.includes(id));
  const [chosen, setChosen] = useState("");
  if (ids.length >= COLOURS.length) return <span className="text-soft">{t.compare.most(COLOURS.length)}</span>;
  const add = (id: string) => {
    setChosen("");
    if (id) onAdd(id);
  };
  return (
    <select aria-label={t.compare.add} className="field max-w-full text-soft" value={chosen} onChange={(event) => add(event.target.value)}>
      <option value="">{t.compare.add}</option>
      {others.map(({ id, name, stage }) => (
        <option key={id} value={id}>
          {name} ({stage}, {id})
        </option>
      ))}
    </select>
  );
}
