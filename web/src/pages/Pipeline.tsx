/** One pipeline: its steps, the loss of the run that works now, and what came out. */
import { useCancelPipeline, usePipeline } from "../api/queries";
import type { Run } from "../api/types";
import { hasEnded, isLive } from "../api/types";
import { may } from "../api/session";
import { type RunFeed, useRunFeed } from "../live/runFeed";
import { duration, seconds } from "../lib/format";
import { latestLoss, lossName } from "../lib/runs";
import { Link } from "../router";
import { t } from "../texts";
import { Button, Card, Failure, LinkButton, LiveDot, Note, Page, StateBadge } from "../ui/basics";
import { useNow } from "../ui/useNow";
import { PipelineScores } from "./pipeline/Scores";
import { StepStrip } from "./pipeline/StepStrip";
import { BlockedNote } from "./run/BlockedNote";
import { LiveLoss } from "./run/curves";
import { LogView } from "./run/LogView";

export function PipelinePage({ pipelineId }: { pipelineId: string }) {
  const pipeline = usePipeline(pipelineId);
  const cancel = useCancelPipeline();
  const state = pipeline.data?.state;
  const ended = state !== undefined && hasEnded(state);
  const now = useNow(ended ? null : 1000);
  if (!pipeline.data) return pipeline.error ? <Failure error={pipeline.error} again={() => void pipeline.refetch()} /> : <p className="text-soft">{t.app.loading}</p>;

  const { name, runs, model, created_at } = pipeline.data;
  const active = activeRun(runs);
  const blocked = runs.find((run) => run.blocked);
  const failed = runs.find((run) => run.state === "failed" && run.reason !== "parent_failed" && !run.optional) ?? runs.find((run) => run.state === "failed");
  const harmless = failed?.optional === true;
  const lastEnd = ended ? runs.map((run) => run.ended_at ?? "").sort().at(-1) : undefined;
  return (
    <Page
      title={name}
      tools={
        <>
          <span className="text-soft">{duration(seconds(created_at, lastEnd, now))}</span>
          <StateBadge state={pipeline.data.state} />
          {!ended && may("operate") && (
            <Button disabled={cancel.isPending} onClick={() => cancel.mutate(pipelineId)}>
              {t.pipeline.cancel}
            </Button>
          )}
        </>
      }
    >
      {cancel.error && <Failure error={cancel.error} />}
      <Card>
        <StepStrip runs={runs} />
      </Card>
      {model && may("infer") && (
        <div className="flex flex-wrap items-center gap-x-5 gap-y-3 rounded-lg border border-good/40 bg-card p-4">
          <LinkButton look="primary" to={`/chat?model=${encodeURIComponent(model)}`} className="px-6 py-3 text-lg">
            {t.pipeline.chat}
          </LinkButton>
          <div className="min-w-0">
            <p>{t.pipeline.ready}</p>
            <p className="font-mono text-xs break-all text-soft">{model}</p>
          </div>
        </div>
      )}
      {failed && (
        <Note tone={harmless ? "warn" : "bad"}>
          <Link to={`/runs/${failed.id}`} className="font-medium underline">
            {failed.name}
          </Link>
          : {failed.message ?? (failed.reason ? t.reason[failed.reason] : t.state.failed)}. {harmless ? t.pipeline.optional : t.pipeline.failed}
        </Note>
      )}
      {blocked && <BlockedNote run={blocked} />}
      <PipelineScores pipelineId={pipelineId} live={!ended} />
      {ended ? <Losses runs={runs} /> : active && <ActiveRun key={active.id} run={active} />}
    </Page>
  );
}

/** The run that works now; between two runs the last one that did. */
function activeRun(runs: readonly Run[]): Run | undefined {
  return runs.find((run) => isLive(run.state)) ?? runs.findLast((run) => run.started_at != null);
}

function ActiveRun({ run }: { run: Run }) {
  const feed = useRunFeed(run.id);
  const learns = run.steps != null || feed.metrics.series.size > 0;
  return (
    <div className={`grid gap-4 ${learns ? "lg:grid-cols-2" : ""}`}>
      {learns && <LossCard run={run} feed={feed} />}
      <Card title={learns ? t.run.log : stageTitle(run)} tools={learns ? undefined : <LiveDot status={feed.status} />}>
        <LogView feed={feed} runId={run.id} height={300} compact />
      </Card>
    </div>
  );
}

/** When all is over: how every run that learned did. */
function Losses({ runs }: { runs: readonly Run[] }) {
  const learned = runs.filter((run) => latestLoss(run) !== undefined);
  return (
    <div className="grid gap-4 lg:grid-cols-2">
      {learned.map((run) => (
        <EndedLoss key={run.id} run={run} />
      ))}
    </div>
  );
}

function EndedLoss({ run }: { run: Run }) {
  return <LossCard run={run} feed={useRunFeed(run.id)} />;
}

function LossCard({ run, feed }: { run: Run; feed: RunFeed }) {
  const tools = (
    <>
      {!hasEnded(run.state) && <LiveDot status={feed.status} />}
      <Link to={`/runs/${run.id}`} className="text-accent underline-offset-2 hover:underline">
        {t.pipeline.openRun}
      </Link>
    </>
  );
  return (
    <Card title={`${lossName(run)}: ${stageTitle(run)}`} tools={tools} className="pb-2">
      <LiveLoss feed={feed} ended={hasEnded(run.state)} height={280} />
    </Card>
  );
}

const stageTitle = (run: Run) => t.pipeline.stage[run.stage] ?? run.stage;
