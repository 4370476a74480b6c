/** What the models of a pipeline can do, side by side: BASE, MID, SFT, RL. */
import { useReport } from "../../api/queries";
import type { ReportRow } from "../../api/types";
import { t } from "../../texts";
import { Card } from "../../ui/basics";
import { ResultTable, type Score } from "../../ui/ResultTable";

const MODELS = ["base", "mid", "sft", "rl"] as const;

export function ReportTable({ pipelineId, live }: { pipelineId: string; live: boolean }) {
  const report = useReport(pipelineId, live).data;
  const rows = report?.rows ?? [];
  const models = MODELS.filter((model) => rows.some((row) => row.cells[model]));
  if (rows.length === 0) return null;
  const download = (
    <a href={`/pipelines/${pipelineId}/report?format=text`} className="text-accent underline-offset-2 hover:underline">
      {t.report.whole}
    </a>
  );
  return (
    <Card title={t.report.title} tools={download}>
      <p className="px-4 pt-3 text-soft">{t.report.hint}</p>
      <ResultTable
        label={t.report.title}
        columns={models.map((model) => ({ key: model, title: t.pipeline.stage[model] ?? model }))}
        rows={rows.map((row) => ({ title: row.title, scores: models.map((model) => score(row, model)) }))}
      />
    </Card>
  );
}

function score({ unit, cells }: ReportRow, model: string): Score | undefined {
  const cell = cells[model];
  return cell && { ...cell, share: unit === "accuracy" };
}
