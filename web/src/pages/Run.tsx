/** One run, live. */
import { recordOf, useRun } from "../api/queries";
import type { Run, RunRecord } from "../api/types";
import { hasEnded } from "../api/types";
import { useRunFeed } from "../live/runFeed";
import { t } from "../texts";
import { Card, Failure, Page, StateBadge } from "../ui/basics";
import { BlockedNote } from "./run/BlockedNote";
import { Charts } from "./run/Charts";
import { CheckpointsCard } from "./run/Checkpoints";
import { ConfigCard } from "./run/ConfigCard";
import { EventsCard } from "./run/Events";
import { Actions, Facts } from "./run/Facts";
import { FirstBatchCard } from "./run/FirstBatch";
import { LogView } from "./run/LogView";
import { AttemptsCard, EvaluationsCard, FailureCard, SamplesCard } from "./run/Records";

export function RunPage({ runId }: { runId: string }) {
  const query = useRun(runId, recordOf);
  const run = query.data;
  if (!run) return query.error ? <Failure error={query.error} again={() => void query.refetch()} /> : <p className="text-soft">{t.app.loading}</p>;
  return (
    <Page
      title={
        <span className="flex flex-wrap items-baseline gap-x-4">
          {run.name}
          <span className="text-base font-normal tracking-normal">
            <StateBadge state={run.state} />
          </span>
        </span>
      }
      tools={<Actions run={run} />}
    >
      <BlockedNote run={run} />
      <Facts run={run} />
      <FailureCard run={run} />
      <Live run={run} />
      <EvaluationsCard run={run} />
      <SamplesCard run={run} />
      <FirstBatchCard run={run} />
      <CheckpointsCard run={run} />
      <AttemptsCard run={run} />
      <EventsCard run={run} />
      <ConfigCard run={run} />
    </Page>
  );
}

const hasNumbers = (run: Run) => Object.keys(run.summary).length > 0;

function Live({ run }: { run: RunRecord }) {
  const feed = useRunFeed(run.id);
  // what it says of itself before its curves are here: the page must not jump when they come
  const told = useRun(run.id, hasNumbers).data;
  const expected = feed.loaded ? feed.metrics.series.size > 0 : told;
  const learns = (!hasEnded(run.state) && run.steps != null) || expected;
  return (
    <>
      {learns && <Charts run={run} feed={feed} />}
      <Card title={t.run.log}>
        <LogView feed={feed} runId={run.id} height={380} />
      </Card>
    </>
  );
}
