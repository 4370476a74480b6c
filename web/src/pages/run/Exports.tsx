/** A checkpoint for other software: made by the service in the background, or by a command where the files are. */
import { useState } from "react";
import { useExports, useStartExport } from "../../api/queries";
import { may } from "../../api/session";
import type { Checkpoint, Export } from "../../api/types";
import { bytes } from "../../lib/format";
import { t } from "../../texts";
import { Button, Failure } from "../../ui/basics";

export const DOWNLOAD = "rounded-md border border-line bg-card px-3 py-1.5 font-medium hover:bg-well";
const DTYPES = ["float32", "bfloat16"] as const;
type Dtype = (typeof DTYPES)[number];

export function Exports({ checkpoint }: { checkpoint: Checkpoint }) {
  const exports = useExports(checkpoint.id);
  const start = useStartExport(checkpoint.id);
  const error = start.error ?? exports.error;
  return (
    <div className="flex basis-full flex-col gap-2 py-1">
      <p className="text-soft">{t.run.exportHint}</p>
      <ul className="flex flex-col gap-1">
        {DTYPES.map((dtype) => (
          <Row
            key={dtype}
            dtype={dtype}
            made={exports.data?.items.find((item) => item.dtype === dtype)}
            onStart={may("operate") ? () => start.mutate(dtype) : undefined}
            starting={start.isPending && start.variables === dtype}
          />
        ))}
      </ul>
      {error && <Failure error={error} />}
      <Command path={checkpoint.path} />
    </div>
  );
}

type RowProps = { dtype: Dtype; made: Export | undefined; onStart: (() => void) | undefined; starting: boolean };

function Row({ dtype, made, onStart, starting }: RowProps) {
  const running = starting || made?.state === "running";
  const failed = made?.state === "failed" && !running;
  return (
    <li className="flex flex-wrap items-center gap-x-3 gap-y-1">
      <span className="w-20 font-mono text-xs">{dtype}</span>
      {made?.state === "ready" ? (
        <a href={`/checkpoints/${encodeURIComponent(made.checkpoint)}/exports/${encodeURIComponent(made.name)}/download`} download className={DOWNLOAD}>
          {t.run.exportFetch(bytes(made.bytes))}
        </a>
      ) : (
        onStart && (
          <Button disabled={running} aria-label={failed ? undefined : t.run.exportAs(dtype)} onClick={onStart}>
            {failed ? t.app.retry : t.run.exportStart}
          </Button>
        )
      )}
      <span role="status" className={failed ? "min-w-0 break-words text-bad" : "text-soft"}>
        {running ? made?.message || t.run.exporting : failed ? made.message : made ? t.run.exported : ""}
      </span>
    </li>
  );
}

function Command({ path }: { path: string }) {
  const command = `nanochat export ${path} --format hf --out my-model`;
  const [copied, setCopied] = useState(false);
  return (
    <div className="flex flex-wrap items-center gap-2">
      <span className="text-soft">{t.run.exportByHand}</span>
      <code className="min-w-0 rounded bg-well px-2 py-1 text-xs break-all">{command}</code>
      <Button look="bare" onClick={() => void navigator.clipboard.writeText(command).then(() => setCopied(true))}>
        {copied ? t.run.copied : t.run.copy}
      </Button>
    </div>
  );
}
