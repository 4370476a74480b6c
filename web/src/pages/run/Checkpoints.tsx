/** What a run saved, and what can be done with it: chat, give it a name, export, download. */
import { type FormEvent, useState } from "react";
import { useCheckpoints, useMeasured, usePromote } from "../../api/queries";
import { may } from "../../api/session";
import type { Checkpoint, RunRecord } from "../../api/types";
import { isLive } from "../../api/types";
import { ago, bytes, count, number } from "../../lib/format";
import { Link } from "../../router";
import { t } from "../../texts";
import { Button, Card, Failure, LinkButton } from "../../ui/basics";
import { useNow } from "../../ui/useNow";
import { Share } from "../../ui/ResultTable";
import { DOWNLOAD, Exports } from "./Exports";

/** The newest are what people want; a long run has hundreds. */
const FIRST = 10;
const MINUTE_MS = 60_000;

type Opened = "promote" | "export" | null;

export function CheckpointsCard({ run }: { run: RunRecord }) {
  const [all, setAll] = useState(false);
  const now = useNow(MINUTE_MS);
  const checkpoints = (useCheckpoints(run.id, isLive(run.state)).data?.items ?? []).toReversed();
  if (checkpoints.length === 0) return null;
  return (
    <Card title={t.run.checkpoints}>
      <ul className="divide-y divide-line">
        {checkpoints.slice(0, all ? undefined : FIRST).map((checkpoint) => (
          <Row key={checkpoint.id} checkpoint={checkpoint} now={now} />
        ))}
      </ul>
      {!all && checkpoints.length > FIRST && (
        <div className="border-t border-line p-2 text-center">
          <Button look="bare" onClick={() => setAll(true)}>
            {t.run.allCheckpoints(checkpoints.length)}
          </Button>
        </div>
      )}
    </Card>
  );
}

function Row({ checkpoint, now }: { checkpoint: Checkpoint; now: number }) {
  const [opened, setOpened] = useState<Opened>(null);
  const toggle = (part: Opened) => setOpened(opened === part ? null : part);
  const { id, model } = checkpoint;
  return (
    <li className="flex flex-wrap items-center gap-x-6 gap-y-1 px-4 py-2">
      <span className="w-24 font-medium">{t.run.checkpointStep(count(checkpoint.step))}</span>
      <span className="min-w-0 flex-1 basis-40 text-soft" title={checkpoint.path}>
        {Object.entries(checkpoint.metrics)
          .map(([key, metric]) => `${key} ${number(metric)}`)
          .join(", ")}
      </span>
      <span>{bytes(checkpoint.bytes)}</span>
      <span className="text-soft">{ago(checkpoint.created_at, now)}</span>
      <span className="flex flex-wrap gap-1">
        {model && may("infer") && <LinkButton to={`/chat?model=${encodeURIComponent(model)}`}>{t.run.chat}</LinkButton>}
        {model && may("operate") && (
          <Button aria-expanded={opened === "promote"} onClick={() => toggle("promote")}>
            {t.run.promote}
          </Button>
        )}
        {model && (
          <Button aria-expanded={opened === "export"} onClick={() => toggle("export")}>
            {t.run.export}
          </Button>
        )}
        <a href={`/checkpoints/${encodeURIComponent(id)}/download`} download className={DOWNLOAD}>
          {t.run.files}
        </a>
      </span>
      <Measured id={id} />
      {opened === "promote" && <Promote id={id} />}
      {opened === "export" && <Exports checkpoint={checkpoint} />}
    </li>
  );
}

/** What evaluations found out about it, the newest of each name. */
function Measured({ id }: { id: string }) {
  const found = useMeasured(id).data?.items ?? [];
  const newest = [...new Map(found.toReversed().map((one) => [one.name, one])).values()];
  if (newest.length === 0) return null;
  return (
    <p className="flex basis-full flex-wrap gap-x-4 text-xs text-soft">
      {t.run.measured}
      {newest.flatMap(({ name, run_id, values, intervals }) =>
        Object.entries(values).map(([task, value]) => (
          <Link key={`${name} ${task}`} to={`/runs/${run_id}`} className="underline-offset-2 hover:underline">
            {task} {intervals?.[task] ? <Share score={{ value, share: true, low: intervals[task]?.[0], high: intervals[task]?.[1] }} /> : number(value)}
          </Link>
        )),
      )}
    </p>
  );
}

function Promote({ id }: { id: string }) {
  const [alias, setAlias] = useState("");
  const promote = usePromote();
  const submit = (event: FormEvent) => {
    event.preventDefault();
    promote.mutate({ checkpoint_id: id, alias });
  };
  return (
    <form onSubmit={submit} className="flex basis-full flex-wrap items-center gap-2 py-1">
      <label htmlFor={`alias-${id}`} className="text-soft">
        {t.run.promoteAsk}
      </label>
      <input id={`alias-${id}`} className="field" required maxLength={64} value={alias} onChange={(event) => setAlias(event.target.value)} />
      <Button type="submit" disabled={promote.isPending}>
        {t.run.save}
      </Button>
      {promote.isSuccess && <span role="status">{t.run.promoted(promote.variables.alias)}</span>}
      {promote.error && <Failure error={promote.error} />}
    </form>
  );
}
