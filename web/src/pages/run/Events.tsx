/** What the trainer said beside its numbers, the newest first; warnings stand out. */
import { useState } from "react";
import { useEvents } from "../../api/queries";
import type { Run } from "../../api/types";
import { isLive } from "../../api/types";
import { tell } from "../../lib/events";
import { count, moment } from "../../lib/format";
import { t } from "../../texts";
import { Card } from "../../ui/basics";

/** More than this nobody reads on a page; `nanochat show` and GET /runs/{id}/events have all. */
const MOST = 500;

export function EventsCard({ run }: { run: Run }) {
  const [onlyWarnings, setOnlyWarnings] = useState(false);
  const events = useEvents(run.id, isLive(run.state)).data ?? [];
  const warnings = events.filter(({ kind }) => kind === "warning");
  if (events.length === 0) return null;
  const only = onlyWarnings && warnings.length > 0;
  const shown = (only ? warnings : events).slice(-MOST).reverse();
  const tools = warnings.length > 0 && (
    <label className="flex items-center gap-1.5 text-warn">
      <input type="checkbox" checked={only} onChange={(event) => setOnlyWarnings(event.target.checked)} />
      {t.events.onlyWarnings(warnings.length)}
    </label>
  );
  return (
    <Card title={t.events.title} tools={tools}>
      <div tabIndex={0} role="region" aria-label={t.events.title} className="max-h-72 overflow-auto outline-offset-[-2px]">
        <table className="w-full text-left">
          <tbody>
            {shown.map((event) => {
              const { kind, text, warns } = tell(event);
              return (
                <tr key={event.seq} className="border-b border-line align-baseline last:border-0 [&>td]:px-2 [&>td]:py-1 [&>td:first-child]:pl-4 [&>td:last-child]:pr-4">
                  <td className="text-xs whitespace-nowrap text-soft">{moment(new Date(event.t * 1000).toISOString())}</td>
                  <td className="hidden text-xs whitespace-nowrap text-soft sm:table-cell">{run.attempt > 1 && `${t.run.attempt} ${event.attempt}`}</td>
                  <td className="text-right text-xs whitespace-nowrap text-soft">{event.step != null && t.run.checkpointStep(count(event.step))}</td>
                  <td className={`w-full min-w-40 break-words ${warns ? "text-warn" : ""}`}>
                    <span className="text-soft">{kind}:</span> {text}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </Card>
  );
}
