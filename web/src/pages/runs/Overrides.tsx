/** Rows of field and value; the stage's schema suggests names and says what each is for. */
import { useId } from "react";
import { at, type Problem, type ProblemItem } from "../../api/problems";
import type { Field, Row } from "../../lib/overrides";
import { toText } from "../../lib/overrides";
import { t } from "../../texts";
import { Button } from "../../ui/basics";
import { Problems } from "./Problems";

type Props = {
  rows: readonly Row[];
  fields: Record<string, Field>;
  onChange: (rows: Row[]) => void;
  problem: Problem | null;
  onUse: (item: ProblemItem) => void;
};

export function Overrides({ rows, fields, onChange, problem, onUse }: Props) {
  const listId = useId();
  const change = (index: number, part: Partial<Row>) => onChange(rows.map((row, i) => (i === index ? { ...row, ...part } : row)));
  const rowless = at(problem, "/overrides").filter((item) => !rows.some((row) => row.key && item.pointer.startsWith(`/overrides/${row.key}`)));
  return (
    <fieldset className="flex flex-col gap-2">
      <legend className="mb-1 font-medium">{t.create.overrides}</legend>
      <p className="text-soft">{t.create.overridesHint}</p>
      <datalist id={listId}>
        {Object.keys(fields).map((key) => (
          <option key={key} value={key} />
        ))}
      </datalist>
      {rows.map((row, index) => {
        const field = fields[row.key];
        return (
          <div key={index} className="flex flex-col gap-1">
            <div className="grid grid-cols-[1fr_1fr_auto] gap-2">
              <input
                className="field font-mono"
                aria-label={t.create.key}
                placeholder={t.create.key}
                list={listId}
                autoComplete="off"
                spellCheck={false}
                value={row.key}
                onChange={(event) => change(index, { key: event.target.value.trim() })}
              />
              <input
                className="field font-mono"
                aria-label={row.key ? `${t.create.value}: ${row.key}` : t.create.value}
                placeholder={field?.default === undefined ? t.create.value : t.create.standard(toText(field.default))}
                autoComplete="off"
                spellCheck={false}
                value={row.text}
                onChange={(event) => change(index, { text: event.target.value })}
              />
              <Button look="bare" aria-label={t.create.remove(row.key)} onClick={() => onChange(rows.filter((_, i) => i !== index))}>
                ✕
              </Button>
            </div>
            {row.key && <Problems items={at(problem, `/overrides/${row.key}`)} onUse={onUse} />}
            {field?.description && <span className="text-xs text-soft">{field.description}</span>}
          </div>
        );
      })}
      <Problems items={rowless} onUse={onUse} />
      <Button className="self-start" onClick={() => onChange([...rows, { key: "", text: "" }])}>
        {t.create.add}
      </Button>
    </fieldset>
  );
}
