/** Files of one's own on the service: upload, look what was wrong with one, use it in a run, delete it. */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { useDeleteFile, useFiles, useStages } from "../api/queries";
import { may } from "../api/session";
import type { StoredFile } from "../api/types";
import { uploads } from "../live/uploads";
import { presetName, uses } from "../lib/files";
import { ago, bytes, moment, percent } from "../lib/format";
import { t } from "../texts";
import { Button, Card, Empty, Failure, LinkButton, Page } from "../ui/basics";
import { DropZone } from "./files/DropZone";
import { UploadList, useUploads } from "./files/UploadList";

export function FilesPage() {
  const client = useQueryClient();
  const files = useFiles();
  const mine = new Set(useUploads().map(({ file, step }) => (step === "ready" ? null : file?.id)));
  useEffect(() => {
    // stays when another page is opened: a preset that is ready then is offered there
    uploads.onReady = () => void client.invalidateQueries();
  }, [client]);
  const known = files.data?.pages.flatMap(({ items }) => items).filter(({ id }) => !mine.has(id)) ?? [];
  return (
    <Page title={t.files.title}>
      {may("submit") && <DropZone />}
      <UploadList />
      {files.error && <Failure error={files.error} again={() => void files.refetch()} />}
      {files.data && (
        <Card title={t.files.here}>
          {known.length > 0 ? (
            <ul aria-label={t.files.here} className="divide-y divide-line">
              {known.map((file) => (
                <Row key={file.id} file={file} />
              ))}
            </ul>
          ) : (
            <Empty>{may("submit") ? t.files.empty : t.files.emptyRead}</Empty>
          )}
          {files.hasNextPage && (
            <div className="border-t border-line p-2 text-center">
              <Button look="bare" disabled={files.isFetchingNextPage} onClick={() => void files.fetchNextPage()}>
                {t.files.more}
              </Button>
            </div>
          )}
        </Card>
      )}
      {!files.data && !files.error && <p className="text-soft">{t.app.loading}</p>}
    </Page>
  );
}

function Row({ file }: { file: StoredFile }) {
  const [asked, setAsked] = useState(false);
  const remove = useDeleteFile();
  const ready = file.state === "ready";
  // what is not ready is nobody's but its sender's
  const mayDelete = may("operate") || (!ready && may("submit"));
  return (
    <li className="flex flex-wrap items-center gap-x-4 gap-y-1 px-4 py-2">
      <span className="min-w-0 flex-1 basis-56">
        <span className="block truncate font-medium" title={file.path}>
          {file.name}
        </span>
        <span className="block truncate font-mono text-xs text-soft">{file.path}</span>
      </span>
      <span className="text-soft sm:w-36">
        {t.files.kind[file.kind]}
        <span className="block text-xs">{file.items != null && t.files.items(file.kind, file.items)}</span>
      </span>
      <span className="whitespace-nowrap sm:w-20 sm:text-right">{bytes(file.size)}</span>
      <span className="whitespace-nowrap text-soft sm:w-24 sm:text-right" title={moment(file.created_at)}>
        {ago(file.created_at)}
      </span>
      <span className="flex basis-full flex-wrap items-center gap-1 lg:w-84 lg:basis-auto lg:justify-end">
        {ready && !asked && may("submit") && <Uses file={file} />}
        {mayDelete && !asked && (
          <Button look="danger" aria-label={t.files.deleteOne(file.name)} onClick={() => setAsked(true)}>
            {t.files.delete}
          </Button>
        )}
        {asked && (
          <>
            <Button look="danger" disabled={remove.isPending} onClick={() => remove.mutate(file.id, { onError: () => setAsked(false) })}>
              {t.files.sure}
            </Button>
            <Button onClick={() => setAsked(false)}>{t.files.keep}</Button>
          </>
        )}
      </span>
      {file.state === "uploading" && <p className="basis-full text-warn">{t.files.unfinished(percent(file.offset / file.size))}</p>}
      {file.state === "checking" && <p className="basis-full text-soft">{t.files.step.checking()}</p>}
      {file.state === "rejected" && <p className="basis-full text-bad">{file.message}</p>}
      {remove.error && (
        <div className="basis-full">
          <Failure error={remove.error} />
        </div>
      )}
    </li>
  );
}

/** Links to the new-run form with the file filled in. */
function Uses({ file }: { file: StoredFile }) {
  const stages = useStages();
  const name = presetName(file.name);
  const knowing = (stages.data?.items ?? []).filter(({ presets }) => presets.includes(name)).map((stage) => stage.name);
  return uses(file, knowing).map(({ stage, to }) => (
    <LinkButton key={stage} to={to}>
      {t.files.use(stage)}
    </LinkButton>
  ));
}
