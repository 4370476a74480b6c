/** The first minute: an empty service explains itself and offers one button; later, what is going on. */
import type { Pipeline } from "../api/types";
import { isLive } from "../api/types";
import { useCreatePipeline, usePipelines, useRuns, useSystem } from "../api/queries";
import { may } from "../api/session";
import { ago } from "../lib/format";
import { Link, navigate } from "../router";
import { t } from "../texts";
import { Button, Card, Failure, LinkButton, Note, Page, StateBadge } from "../ui/basics";
import { StepStrip } from "./pipeline/StepStrip";
import { RunRows } from "./runs/RunRows";
import { OpenAlerts } from "./system/Alerts";

export function HomePage() {
  const pipelines = usePipelines();
  const runs = useRuns({ limit: 8 });
  if (pipelines.isPending || runs.isPending) {
    const failed = pipelines.error ?? runs.error;
    return failed ? <Failure error={failed} again={() => void pipelines.refetch()} /> : <p className="text-soft">{t.app.loading}</p>;
  }
  const known = pipelines.data?.items ?? [];
  const single = (runs.data?.items ?? []).filter((run) => !run.pipeline);
  if (known.length === 0 && single.length === 0) return <Welcome />;
  return (
    <Page title={t.app.home} tools={
        may("submit") && (
          <>
            <TrainDemo look="quiet" />
            <LinkButton to="/pipelines/new">{t.pipeline.create}</LinkButton>
          </>
        )
      }>
      <NoWorker />
      <OpenAlerts />
      {known.slice(0, 5).map((pipeline) => (
        <PipelineCard key={pipeline.id} pipeline={pipeline} />
      ))}
      {single.length > 0 && (
        <Card title={t.app.runs} tools={<Link to="/runs" className="text-accent underline-offset-2 hover:underline">{t.home.allRuns}</Link>}>
          <RunRows runs={single} />
        </Card>
      )}
    </Page>
  );
}

function Welcome() {
  return (
    <div className="mx-auto flex max-w-xl flex-col gap-5 pt-[8vh]">
      <h1 className="text-3xl sm:text-4xl">{t.home.title}</h1>
      <p className="text-base text-soft">{t.home.explain}</p>
      {may("submit") && (
        <div className="flex flex-wrap items-start gap-3">
          <TrainDemo look="primary" />
          <LinkButton to="/pipelines/new" className="px-5 py-2.5 text-base">
            {t.pipeline.create}
          </LinkButton>
        </div>
      )}
      <NoWorker />
    </div>
  );
}

function TrainDemo({ look }: { look: "primary" | "quiet" }) {
  const train = useCreatePipeline((made) => navigate(`/pipelines/${made.id}`));
  return (
    <div className="flex flex-col items-start gap-2">
      <Button look={look} className={look === "primary" ? "px-5 py-2.5 text-base" : ""} disabled={train.isPending} onClick={() => train.mutate({ preset: "demo" })}>
        {train.isPending ? t.home.starting : t.home.train}
      </Button>
      {train.error && <Failure error={train.error} />}
    </div>
  );
}

function NoWorker() {
  const system = useSystem();
  if (!system.data || system.data.workers.some((worker) => worker.alive)) return null;
  return <Note tone="warn">{t.home.noWorker}</Note>;
}

function PipelineCard({ pipeline }: { pipeline: Pipeline }) {
  return (
    <Card
      title={
        <Link to={`/pipelines/${pipeline.id}`} className="hover:underline">
          {pipeline.name}
        </Link>
      }
      tools={
        <>
          <span className="text-soft">{t.pipeline.created(ago(pipeline.created_at))}</span>
          <StateBadge state={pipeline.state} />
          {pipeline.model && may("infer") && (
            <LinkButton look="primary" to={`/chat?model=${encodeURIComponent(pipeline.model)}`}>
              {t.pipeline.chat}
            </LinkButton>
          )}
        </>
      }
    >
      <StepStrip runs={pipeline.runs} quiet={!pipeline.runs.some((run) => isLive(run.state))} />
    </Card>
  );
}
