/** What the models of the runs can do: every measure of their evaluations, with 95 % intervals. */
import { useQueries } from "@tanstack/react-query";
import { getEvaluations } from "../../api/queries";
import type { Evaluation, Run } from "../../api/types";
import { t } from "../../texts";
import { Card } from "../../ui/basics";
import { ResultTable, type Score } from "../../ui/ResultTable";

/** A run's last values: what its evaluations measured, and of its metrics those that judge. */
const JUDGES = ["val/bpb", "val/loss", "sft/val_loss", "core/metric", "train/loss", "sft/loss", "reward/mean", "val/pass@1"];

export function Results({ runs }: { runs: readonly Run[] }) {
  const found = useQueries({ queries: runs.map((run) => ({ queryKey: ["evaluations", { run: run.id }], queryFn: () => getEvaluations({ run: run.id }) })) });
  const measured = runs.map((run, i) => measures(run, found[i]?.data?.items ?? []));
  const names = [...new Set(measured.flatMap((scores) => [...scores.keys()]))];
  if (names.length === 0) return null;
  return (
    <Card title={t.compare.results}>
      <p className="px-4 pt-3 text-soft">{t.compare.resultsHint}</p>
      <ResultTable
        label={t.compare.results}
        columns={runs.map(({ id, name }) => ({ key: id, title: name }))}
        rows={names.map((name) => ({ title: t.metric[name] ?? name, scores: measured.map((scores) => scores.get(name)) }))}
      />
    </Card>
  );
}

/** Newer evaluations come first and win. */
function measures(run: Run, evaluations: readonly Evaluation[]): Map<string, Score> {
  const found = new Map<string, Score>();
  for (const key of JUDGES) {
    const value = run.summary?.[key];
    if (value !== undefined) found.set(key, { value, share: false });
  }
  for (const { name, values, totals, intervals, counts } of evaluations)
    for (const [task, value] of Object.entries({ ...values, ...totals })) {
      const key = `${name}: ${task}`;
      const [low, high] = intervals?.[task] ?? [];
      if (!found.has(key)) found.set(key, { value, share: low !== undefined, low, high, count: counts?.[task] });
    }
  return found;
}
