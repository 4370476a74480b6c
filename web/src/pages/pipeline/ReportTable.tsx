/** What the models of a pipeline can do, side by side: BASE, MID, SFT, RL. */
import { useReport } from "../../api/queries";
import type { ReportCell, ReportRow } from "../../api/types";
import { number, percent } from "../../lib/format";
import { t } from "../../texts";
import { Card } from "../../ui/basics";

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
      <div className="overflow-x-auto p-4 pt-2">
        <table className="w-full text-right">
          <thead>
            <tr className="border-b border-line text-soft">
              <th scope="col" className="py-1.5 pr-4 text-left font-medium">
                {t.report.measure}
              </th>
              {models.map((model) => (
                <th key={model} scope="col" className="px-3 py-1.5 font-medium">
                  {t.pipeline.stage[model] ?? model}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.title} className="border-b border-line/60 last:border-0">
                <th scope="row" className="py-1.5 pr-4 text-left font-normal">
                  {row.title}
                </th>
                {models.map((model) => (
                  <td key={model} className="px-3 py-1.5 whitespace-nowrap tabular-nums">
                    <Value row={row} cell={row.cells[model]} />
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

function Value({ row, cell }: { row: ReportRow; cell: ReportCell | undefined }) {
  if (!cell) return <span className="text-soft">–</span>;
  if (row.unit !== "accuracy") return <>{number(cell.value)}</>;
  return (
    <>
      <b className="font-semibold">{percent(cell.value)}</b>
      {cell.low != null && cell.high != null && (
        <span className="text-xs text-soft">
          {" "}
          {Math.round(cell.low * 100)}–{Math.round(cell.high * 100)}
        </span>
      )}
    </>
  );
}
