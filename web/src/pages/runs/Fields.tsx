/** The form of a stage, drawn from its JSON schema: what is left empty stays as the preset and the defaults say. */
import { useState } from "react";
import { at, type Problem, type ProblemItem } from "../../api/problems";
import { type Field, toText } from "../../lib/overrides";
import { t } from "../../texts";
import { Button } from "../../ui/basics";
import { Problems } from "./Problems";

/** What people change most; everything else is a click away. */
const COMMON = [
  "arch", "depth", "max_seq_len", "device_batch_size", "total_batch_size", "num_iterations", "vocab_size", "max_chars", "data", "tasks",
  "max_problems", "num_samples", "init_lr_frac", "matrix_lr", "eval_every", "save_every",
]; // prettier-ignore

export type Values = Record<string, string>;

type Props = {
  fields: Record<string, Field>;
  values: Values;
  /** What holds where nothing is written. */
  effective: Record<string, unknown>;
  problem: Problem | null;
  onChange: (key: string, text: string) => void;
  onUse: (item: ProblemItem) => void;
};

export function Fields(props: Props) {
  const { fields, values, problem } = props;
  const [wanted, setWanted] = useState("");
  const word = wanted.trim().toLowerCase();
  const keys = Object.keys(fields);
  const found = word ? keys.filter((key) => `${key} ${fields[key]?.description ?? ""}`.toLowerCase().includes(word)) : null;
  const common = COMMON.filter((key) => key in fields);
  const first = [...common, ...keys.filter((key) => !common.includes(key) && (values[key] || at(problem, `/overrides/${key}`).length > 0))];
  const rest = keys.filter((key) => !first.includes(key));
  return (
    <fieldset className="flex flex-col gap-3">
      <legend className="mb-1 font-medium">{t.create.fields}</legend>
      <div className="flex flex-wrap items-center justify-between gap-2">
        <p className="text-soft">{t.create.fieldsHint}</p>
        <input type="search" className="field" placeholder={t.create.findField} aria-label={t.create.findField} value={wanted} onChange={(event) => setWanted(event.target.value)} />
      </div>
      <Grid {...props} keys={found ?? first} />
      {!found && rest.length > 0 && (
        <details>
          <summary className="w-fit text-soft hover:text-ink">{t.create.moreFields(rest.length)}</summary>
          <div className="mt-3">
            <Grid {...props} keys={rest} />
          </div>
        </details>
      )}
    </fieldset>
  );
}

function Grid({ keys, fields, values, effective, problem, onChange, onUse }: Props & { keys: readonly string[] }) {
  return (
    <div className="grid gap-x-6 gap-y-3 sm:grid-cols-2">
      {keys.map((key) => {
        const field = fields[key] ?? {};
        const text = values[key] ?? "";
        return (
          <div key={key} className="flex min-w-0 flex-col gap-1">
            <div className="flex items-center gap-2">
              <label htmlFor={`field-${key}`} className={`font-mono text-xs ${text ? "font-semibold" : ""}`}>
                {key}
              </label>
              {text && (
                <Button look="bare" className="ml-auto py-0 text-xs" aria-label={t.create.reset(key)} onClick={() => onChange(key, "")}>
                  ✕
                </Button>
              )}
            </div>
            <Input id={`field-${key}`} field={field} text={text} effective={effective[key] ?? field.default} onChange={(next) => onChange(key, next)} />
            <Problems items={at(problem, `/overrides/${key}`)} onUse={onUse} />
            {field.description && (
              <span className="line-clamp-2 text-xs text-soft" title={field.description}>
                {field.description}
              </span>
            )}
          </div>
        );
      })}
    </div>
  );
}

function Input({ id, field, text, effective, onChange }: { id: string; field: Field; text: string; effective: unknown; onChange: (text: string) => void }) {
  const standard = t.create.standard(toText(effective ?? null));
  const choices = field.type === "boolean" ? ["true", "false"] : field.enum?.map(String);
  if (choices)
    return (
      <select id={id} className="field" value={text} onChange={(event) => onChange(event.target.value)}>
        <option value="">{names(standard)}</option>
        {choices.map((choice) => (
          <option key={choice} value={choice}>
            {names(choice)}
          </option>
        ))}
      </select>
    );
  const numeric = field.type === "integer" || field.type === "number";
  return (
    <input
      id={id}
      className="field placeholder:text-soft"
      inputMode={numeric ? "decimal" : undefined}
      placeholder={standard}
      autoComplete="off"
      spellCheck={false}
      value={text}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}

const names = (choice: string) => ({ true: t.create.yes, false: t.create.no })[choice] ?? choice;
