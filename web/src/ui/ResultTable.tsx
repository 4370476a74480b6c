/** Measures down, models across: what each of them scored. */
import { number, percent } from "../lib/format";
import { t } from "../texts";

/** `share`: of right answers, 0…1; anything else is a plain number. */
export type Score = { value: number; share: boolean; low?: number | null | undefined; high?: number | null | undefined; count?: number | null | undefined };

type Props = { label: string; columns: readonly { key: string; title: string }[]; rows: readonly { title: string; scores: readonly (Score | undefined)[] }[] };

export function ResultTable({ label, columns, rows }: Props) {
  return (
    <div className="overflow-x-auto p-4 pt-2" tabIndex={0} role="region" aria-label={label}>
      <table className="w-full text-right">
        <thead>
          <tr className="border-b border-line text-soft [&>th]:px-3 [&>th]:py-1.5 [&>th]:font-medium">
            <th scope="col" className="text-left">
              {t.report.measure}
            </th>
            {columns.map(({ key, title }) => (
              <th key={key} scope="col">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ title, scores }) => (
            <tr key={title} className="border-b border-line/60 last:border-0 [&>*]:px-3 [&>*]:py-1.5">
              <th scope="row" className="text-left font-normal">
                {title}
              </th>
              {columns.map(({ key }, i) => (
                <td key={key} className="whitespace-nowrap">
                  <Value score={scores[i]} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Value({ score }: { score: Score | undefined }) {
  if (!score) return <span className="text-soft">–</span>;
  return <span title={score.count == null ? undefined : `${score.count} ${t.pipeline.questions}`}>{score.share ? <Share score={score} /> : number(score.value)}</span>;
}

/** 97 % 93–99: a share and its interval. */
export function Share({ score: { value, low, high } }: { score: Score }) {
  return (
    <>
      <b className="font-semibold">{percent(value)}</b>
      {low != null && high != null && (
        <span className="text-xs text-soft">
          {" "}
          {Math.round(low * 100)}–{Math.round(high * 100)}
        </span>
      )}
    </>
  );
}
