/** The head of a run's page: where it is, how fast, what it uses, what can be done now. */
import { useRun, useRunAction } from "../../api/queries";
import { may } from "../../api/session";
import type { RunRecord } from "../../api/types";
import { hasEnded, isLive } from "../../api/types";
import { bytes, compact, duration, number, seconds } from "../../lib/format";
import { actions, latestLoss, progress, secondsLeft, steps } from "../../lib/runs";
import { Link, navigate } from "../../router";
import { t } from "../../texts";
import { Bar, Button, Card, Fact, Failure, LinkButton } from "../../ui/basics";
import { useNow } from "../../ui/useNow";
import { Notes } from "./Notes";
import { Tags } from "./Tags";

export function Actions({ run }: { run: RunRecord }) {
  const act = useRunAction((answer) => answer.id !== run.id && navigate(`/runs/${answer.id}`)); // a retry is a new run
  const possible = may("operate") ? actions(run) : [];
  const wish = run.desired !== "run" && !hasEnded(run.state) && run.state !== "paused" ? t.run.stopping[run.desired] : null;
  return (
    <>
      {wish && <span className="text-warn">{wish}</span>}
      {may("submit") && <LinkButton to={`/runs/new?from=${run.id}`}>{t.run.duplicate}</LinkButton>}
      <LinkButton to={`/compare?runs=${run.id}`}>{t.run.compare}</LinkButton>
      {possible.map((action) => (
        <Button key={action} look={action === "cancel" ? "danger" : "quiet"} disabled={act.isPending} onClick={() => act.mutate({ runId: run.id, action })}>
          {t.run[action]}
        </Button>
      ))}
      {act.error && <Failure error={act.error} />}
    </>
  );
}

export function Facts({ run }: { run: RunRecord }) {
  return (
    <Card className="p-4">
      <Progress runId={run.id} />
      <Relations run={run} />
    </Card>
  );
}

/** Changes with every step. */
function Progress({ runId }: { runId: string }) {
  const run = useRun(runId).data;
  const live = run !== undefined && isLive(run.state);
  const now = useNow(live ? 1000 : null);
  if (!run) return null;
  const share = progress(run);
  const bpb = run.summary["val/bpb"];
  return (
    <>
      {(run.steps || share !== null) && (
        <Bar share={share} label={t.runs.progress} className="mb-3" tone={run.state === "succeeded" ? "bg-good" : run.state === "failed" ? "bg-bad" : "bg-accent"} />
      )}
      <dl className="grid grid-cols-2 gap-x-6 gap-y-3 sm:grid-cols-4 lg:grid-cols-8">
        <Fact label={t.runs.stage}>{run.stage}</Fact>
        <Fact label={t.run.step} title={steps(run)}>
          {steps(run)}
        </Fact>
        {live ? (
          <Fact label={t.run.eta}>{duration(secondsLeft(run))}</Fact>
        ) : (
          <Fact label={t.run.elapsed}>{duration(seconds(run.started_at, run.ended_at, now))}</Fact>
        )}
        {live && <Fact label={t.run.elapsed}>{duration(seconds(run.started_at, run.ended_at, now))}</Fact>}
        <Fact label={t.run.loss}>{number(latestLoss(run))}</Fact>
        {bpb !== undefined && <Fact label={t.run.bpb}>{number(bpb)}</Fact>}
        <Fact label={t.run.speed}>{compact(run.summary["train/tok_per_sec"])}</Fact>
        <Fact label={t.run.gpus}>{run.gpus === 0 ? t.run.cpu : run.gpus}</Fact>
        {!live && <Fact label={t.run.memory}>{bytes(run.peak_bytes)}</Fact>}
      </dl>
    </>
  );
}

function Relations({ run }: { run: RunRecord }) {
  const links = [
    run.pipeline && { label: t.run.pipeline, to: `/pipelines/${run.pipeline}`, text: run.pipeline },
    run.parent && { label: t.run.parent, to: `/runs/${run.parent}`, text: run.parent },
    run.retry_of && { label: t.run.retryOf, to: `/runs/${run.retry_of}`, text: run.retry_of },
  ].filter((link) => typeof link === "object" && link !== null);
  return (
    <div className="mt-3 flex flex-wrap items-center gap-x-5 gap-y-2 border-t border-line pt-3 text-xs text-soft">
      <span className="font-mono">{run.id}</span>
      {run.preset && (
        <span>
          {t.runs.preset} {run.preset}
        </span>
      )}
      {run.attempt > 1 && (
        <span>
          {t.run.attempt} {run.attempt}
        </span>
      )}
      {links.map(({ label, to, text }) => (
        <span key={to}>
          {label}{" "}
          <Link to={to} className="font-mono text-accent underline-offset-2 hover:underline">
            {text}
          </Link>
        </span>
      ))}
      <Tags run={run} />
      <Notes run={run} />
    </div>
  );
}
