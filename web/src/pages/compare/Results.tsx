/** What the models of the runs can do: every measure of their evaluations, with 95 % intervals. */
import { useQueries } from "@tanstack/react-query";
import { getEvaluations } from "../../api/queries";
import type { Evaluation, Run } from "../../api/types";
import { number, percent } from "../../lib/format";
import { t } from "../../texts";
import { Card } from "../../ui/basics";

type Cell = { value: number; interval: readonly number[] | undefined; count: number | undefined };

/** A run's last values: what its evaluations measured, and of its metrics those that judge. */
const JUDGES = ["val/bpb", "val/loss", "sft/val_loss", "core/metric", "train/loss", "sft/loss", "reward/mean", "val/pass@1"];

export function Results({ runs }: { runs: readonly Run[] }) {
  const found = useQueries({ queries: runs.map((run) => ({ queryKey: ["evaluations", { run: run.id }], queryFn: () => getEvaluations({ run: run.id }) })) });
  const columns = runs.map((run, i) => measures(run, found[i]?.data?.items ?? []));
  const names = [...new Set(columns.flatMap((column) => [...column.keys()]))];
  if (names.length === 0) return null;
  return (
    <Card title={t.compare.results}>
      <p className="px-4 pt-3 text-soft">{t.compare.resultsHint}</p>
      <div className="overflow-x-auto p-4 pt-2" tabIndex={0} role="region" aria-label={t.compare.results}>
        <table className="w-full text-right">
          <thead>
            <tr className="border-b border-line text-soft [&>th]:px-3 [&>th]:py-1.5 [&>th]:font-medium">
              <th scope="col" className="text-left">
                {t.report.measure}
              </th>
              {runs.map((run) => (
                <th key={run.id} scope="col">
                  {run.name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {names.map((name) => (
              <tr key={name} className="border-b border-line/60 last:border-0 [&>*]:px-3 [&>*]:py-1.5">
                <th scope="row" className="text-left font-normal">
                  {t.metric[name] ?? name}
                </th>
                {columns.map((column, i) => (
                  <td key={runs[i]?.id} className="whitespace-nowrap">
                    <Value cell={column.get(name)} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

/** Newer evaluations come first and win. */
function measures(run: Run, evaluations: readonly Evaluation[]): Map<string, Cell> {
  const found = new Map<string, Cell>();
  for (const key of JUDGES) {
    const value = run.summary?.[key];
    if (value !== undefined) found.set(key, { value, interval: undefined, count: undefined });
  }
  for (const { name, values, totals, intervals, counts } of evaluations)
    for (const [task, value] of Object.entries({ ...values, ...totals })) {
      const key = `${name}: ${task}`;
      if (!found.has(key)) found.set(key, { value, interval: intervals?.[task], count: counts?.[task] });
    }
  return found;
}

function Value({ cell }: { cell: Cell | undefined }) {
  if (!cell) return <span className="text-soft">–</span>;
  const { value, interval, count } = cell;
  const [low, high] = interval ?? [];
  if (low === undefined || high === undefined) return number(value);
  return (
    <span title={count === undefined ? undefined : `${count} ${t.pipeline.questions}`}>
      <b className="font-semibold">{percent(value)}</b>
      <span className="text-xs text-soft">
        {" "}
        {Math.round(low * 100)}–{Math.round(high * 100)}
      </span>
    </span>
  );
}
