/** What is on its way from this window. */
import { useSyncExternalStore } from "react";
import { type UploadState, uploads } from "../../live/uploads";
import { bytes, percent } from "../../lib/format";
import { t } from "../../texts";
import { Bar, Button, Card } from "../../ui/basics";

export const useUploads = () => useSyncExternalStore(uploads.watch, uploads.seen);

export function UploadList() {
  const all = useUploads();
  if (all.length === 0) return null;
  return (
    <Card title={t.files.uploads}>
      <ul aria-label={t.files.uploads} className="divide-y divide-line">
        {all.map((upload) => (
          <Row key={upload.key} upload={upload} />
        ))}
      </ul>
    </Card>
  );
}

const TONES: Partial<Record<UploadState["step"], string>> = { ready: "bg-good", rejected: "bg-bad", failed: "bg-bad", paused: "bg-soft", waiting: "bg-warn" };

function Row({ upload }: { upload: UploadState }) {
  const { key, title, kind, size, done, step, message } = upload;
  const share = size > 0 ? done / size : 1;
  const act = (verb: (found: NonNullable<ReturnType<typeof uploads.find>>) => unknown) => () => {
    const found = uploads.find(key);
    if (found) void verb(found);
  };
  const ended = step === "ready" || step === "rejected" || step === "failed";
  return (
    <li className="flex flex-wrap items-center gap-x-4 gap-y-1 px-4 py-2">
      <span className="min-w-0 flex-1 basis-48 truncate font-medium" title={title}>
        {title}
      </span>
      <span className="text-soft">
        {kind ? `${t.files.kind[kind]} · ` : ""}
        {bytes(size)}
      </span>
      <span className="flex items-center gap-1">
        {(step === "sending" || step === "waiting" || step === "reading") && (
          <Button onClick={act((found) => found.pause())}>{t.files.pause}</Button>
        )}
        {step === "paused" && <Button onClick={act((found) => uploads.go(found))}>{t.files.resume}</Button>}
        {step === "failed" && <Button onClick={act((found) => uploads.go(found))}>{t.app.retry}</Button>}
        <Button look="bare" aria-label={(ended ? t.files.dismiss : t.files.cancel)(title)} title={(ended ? t.files.dismiss : t.files.cancel)(title)} onClick={act((found) => uploads.drop(found))}>
          ✕
        </Button>
      </span>
      <div className="flex basis-full items-center gap-3">
        <Bar share={share} label={t.files.progress(title)} tone={TONES[step] ?? "bg-accent"} className="flex-1" />
        <span role={step === "sending" || step === "reading" ? undefined : "status"} className={`min-w-28 text-right text-xs ${step === "waiting" ? "text-warn" : "text-soft"}`}>
          {t.files.step[step](percent(share))}
        </span>
      </div>
      {message && (
        <p role="alert" className="basis-full text-bad">
          {message}
        </p>
      )}
    </li>
  );
}
