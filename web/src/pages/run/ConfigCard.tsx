/** What a run was told: every field, those that differ from the defaults in bold, or against another run. */
import { useState } from "react";
import { useRun, useRunChoices, useStages } from "../../api/queries";
import type { RunRecord } from "../../api/types";
import { type Difference, differences } from "../../lib/configs";
import { value } from "../../lib/format";
import { t } from "../../texts";
import { Card, Empty } from "../../ui/basics";

export function ConfigCard({ run }: { run: RunRecord }) {
  const [onlyChanged, setOnlyChanged] = useState(false);
  const [other, setOther] = useState(run.retry_of ?? "");
  const others = useRunChoices({ stage: run.stage, limit: 100 }).data?.items.filter(({ id }) => id !== run.id) ?? [];
  const tools = (
    <>
      {others.length > 0 && (
        <label className="flex min-w-0 items-center gap-2 text-soft">
          {t.run.differenceTo}
          <select className="field max-w-48 py-0.5 text-ink" value={other} onChange={(event) => setOther(event.target.value)}>
            <option value="">{t.run.nothing}</option>
            {others.map(({ id, name }) => (
              <option key={id} value={id}>
                {name} ({id})
              </option>
            ))}
          </select>
        </label>
      )}
      {!other && (
        <label className="flex items-center gap-1.5 text-soft">
          <input type="checkbox" checked={onlyChanged} onChange={(event) => setOnlyChanged(event.target.checked)} />
          {t.run.onlyChanged}
        </label>
      )}
    </>
  );
  return (
    <Card title={t.run.config} tools={tools}>
      {other ? <Against run={run} otherId={other} /> : <Fields run={run} onlyChanged={onlyChanged} />}
    </Card>
  );
}

function Fields({ run, onlyChanged }: { run: RunRecord; onlyChanged: boolean }) {
  const schema = useStages().data?.items.find((stage) => stage.name === run.stage)?.config_schema;
  const fields = (schema?.["properties"] ?? {}) as Record<string, { default?: unknown; description?: string }>;
  const differs = (key: string) => key in fields && JSON.stringify(fields[key]?.default) !== JSON.stringify(run.config[key]);
  const keys = Object.keys(run.config).filter((key) => !onlyChanged || differs(key));
  return (
    <dl className="gap-x-8 px-4 py-2 sm:columns-2 xl:columns-3">
      {keys.map((key) => (
        <div key={key} className="flex break-inside-avoid items-baseline justify-between gap-4 border-b border-line/60 py-1" title={fields[key]?.description}>
          <dt className="font-mono text-xs text-soft">{key}</dt>
          <dd className={`min-w-0 text-right font-mono text-xs break-all ${differs(key) ? "font-semibold" : ""}`}>
            {value(run.config[key]) || "–"}
            {differs(key) && <span className="sr-only"> ({t.run.changed})</span>}
          </dd>
        </div>
      ))}
    </dl>
  );
}

function Against({ run, otherId }: { run: RunRecord; otherId: string }) {
  const other = useRun(otherId).data;
  if (!other) return <Empty>{t.app.loading}</Empty>;
  const found = differences([run, other]);
  if (found.length === 0) return <Empty>{t.run.same}</Empty>;
  return <Differences found={found} names={[run.name, other.name]} />;
}

/** A row for each field that is not the same everywhere. */
export function Differences({ found, names }: { found: readonly Difference[]; names: readonly string[] }) {
  return (
    <div className="overflow-x-auto" tabIndex={0} role="region" aria-label={t.run.config}>
      <table className="w-full text-left text-xs">
        <thead className="text-soft">
          <tr className="border-b border-line [&>th]:px-4 [&>th]:py-1.5 [&>th]:font-medium">
            <th scope="col">{t.run.field}</th>
            {names.map((name, i) => (
              <th key={i} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody className="font-mono">
          {found.map(({ key, values }) => (
            <tr key={key} className="border-b border-line/60 last:border-0 [&>*]:px-4 [&>*]:py-1">
              <th scope="row" className="font-normal text-soft">
                {key}
              </th>
              {values.map((item, i) => (
                <td key={i} className="break-all">
                  {item === undefined ? "–" : value(item) || "–"}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
