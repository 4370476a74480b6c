/** What a person should look at: alerts that are not over. */
import { useAlerts } from "../../api/queries";
import { ago, moment } from "../../lib/format";
import { Link } from "../../router";
import { t } from "../../texts";

export function OpenAlerts() {
  const alerts = useAlerts().data?.items ?? [];
  if (alerts.length === 0) return null;
  return (
    <section role="status" aria-label={t.alerts.title} className="rounded-lg border border-warn/60 bg-card">
      <h2 className="px-4 pt-2 text-warn">{t.alerts.title}</h2>
      <ul className="divide-y divide-line">
        {alerts.map(({ id, kind, message, run_id, created_at }) => (
          <li key={id} className="flex flex-wrap items-baseline gap-x-4 gap-y-1 px-4 py-2">
            <span className="font-medium">{t.alerts.kind[kind]}</span>
            <span className="min-w-0 flex-1 basis-60 break-words">{message}</span>
            {run_id && (
              <Link to={`/runs/${run_id}`} className="font-mono text-accent underline-offset-2 hover:underline">
                {run_id}
              </Link>
            )}
            <span className="text-soft" title={moment(created_at)}>
              {ago(created_at)}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}
