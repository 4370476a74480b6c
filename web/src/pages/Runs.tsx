/** All runs, newest first, with a dialog to start one. */
import { useState } from "react";
import { useRuns, useStages } from "../api/queries";
import type { RunState } from "../api/types";
import { t } from "../texts";
import { Button, Card, Empty, Failure, Page } from "../ui/basics";
import { NewRun } from "./runs/NewRun";
import { RunRows } from "./runs/RunRows";

const ACTIVE: RunState[] = ["waiting", "queued", "starting", "running", "stopping", "lost", "paused"];
const PAGE = 50;

export function RunsPage() {
  const [state, setState] = useState("");
  const [stage, setStage] = useState("");
  const [limit, setLimit] = useState(PAGE);
  const [creating, setCreating] = useState(false);
  const stages = useStages();
  const states = state === "active" ? ACTIVE : state ? [state as RunState] : undefined;
  const runs = useRuns({ limit, ...(stage && { stage }), ...(states && { state: states }) });
  const filtered = Boolean(state || stage);
  return (
    <Page
      title={t.runs.title}
      tools={
        <Button look="primary" onClick={() => setCreating(true)}>
          {t.runs.create}
        </Button>
      }
    >
      <div className="flex flex-wrap gap-3">
        <Filter label={t.runs.filterState} value={state} onChange={setState} options={[["active", t.runs.active], ...Object.entries(t.state)]} />
        <Filter label={t.runs.filterStage} value={stage} onChange={setStage} options={(stages.data?.items ?? []).map(({ name }) => [name, name])} />
      </div>
      {runs.error && <Failure error={runs.error} again={() => void runs.refetch()} />}
      {runs.data && (
        <Card>
          {runs.data.items.length > 0 ? <RunRows runs={runs.data.items} /> : <Empty>{filtered ? t.runs.none : t.runs.empty}</Empty>}
        </Card>
      )}
      {runs.data?.next_cursor && limit < 200 && (
        <Button className="self-center" onClick={() => setLimit(Math.min(200, limit + PAGE))}>
          {t.app.more}
        </Button>
      )}
      {creating && <NewRun onClose={() => setCreating(false)} />}
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
