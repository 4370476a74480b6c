/** What the trainer said beside its numbers, the newest first; warnings stand out. */
import { useState } from "react";
import { useEvents } from "../../api/queries";
import type { RunRecord } from "../../api/types";
import { isLive } from "../../api/types";
import { tell } from "../../lib/events";
import { count, moment } from "../../lib/format";
import { t } from "../../texts";
import { Card } from "../../ui/basics";

/** More than this nobody reads on a page; `nanochat show` and GET /runs/{id}/events have all. */
const MOST = 500;

export function EventsCard({ run }: { run: RunRecord }) {
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
        <ul className="divide-y divide-line">
          {shown.map((event) => {
            const { kind, text, warns } = tell(event);
            return (
              <li key={event.seq} className="flex flex-wrap items-baseline gap-x-4 px-4 py-1">
                <span className="text-xs whitespace-nowrap text-soft sm:w-40">{moment(new Date(event.t * 1000).toISOString())}</span>
                {run.attempt > 1 && <span className="text-xs whitespace-nowrap text-soft">{`${t.run.attempt} ${event.attempt}`}</span>}
                <span className="text-xs whitespace-nowrap text-soft sm:w-20">{event.step != null && t.run.checkpointStep(count(event.step))}</span>
                <span className={`min-w-0 basis-full [overflow-wrap:anywhere] sm:flex-1 sm:basis-0 ${warns ? "text-warn" : ""}`}>
                  <span className="text-soft">{kind}:</span> {text}
                </span>
              </li>
            );
          })}
        </ul>
      </div>
    </Card>
  );
}
