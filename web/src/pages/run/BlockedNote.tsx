/** Why a run does not start, and what would. */
import type { RunRecord } from "../../api/types";
import { t } from "../../texts";
import { Note } from "../../ui/basics";

export function BlockedNote({ run }: { run: RunRecord }) {
  if (!run.blocked) return null;
  return (
    <Note tone="warn">
      <b className="font-semibold">{t.run.blocked}</b> {run.blocked.message}
      {run.blocked.preset && !run.blocked.message.includes(run.blocked.preset) && ` ${t.runs.tryPreset(run.blocked.preset)}`}
    </Note>
  );
}
