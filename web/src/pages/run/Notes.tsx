/** What people wrote about a run: plain text, and a place to write it. */
import { type FormEvent, type KeyboardEvent, useState } from "react";
import { ChangedElsewhere } from "../../api/queries";
import { may } from "../../api/session";
import type { RunRecord } from "../../api/types";
import { t } from "../../texts";
import { Button, Failure } from "../../ui/basics";
import { useRunEdit } from "./useRunEdit";

/** The most the service takes. */
const MOST_CHARS = 65_536;

export function Notes({ run }: { run: RunRecord }) {
  const [text, setText] = useState("");
  const edit = useRunEdit(run);
  const save = (event: FormEvent) => {
    event.preventDefault();
    edit.save({ notes: text.trimEnd() });
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save(event);
  };
  if (edit.begun)
    return (
      <form onSubmit={save} className="flex w-full flex-col gap-2">
        <textarea
          autoFocus
          aria-label={t.run.notes}
          className="field text-ink"
          rows={Math.min(20, Math.max(4, text.split("\n").length + 1))}
          maxLength={MOST_CHARS}
          value={text}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={onKey}
        />
        {edit.error && <Failure error={edit.error} />}
        {edit.error instanceof ChangedElsewhere && <Text>{edit.error.now.notes}</Text>}
        <div className="flex gap-2">
          <Button type="submit" disabled={edit.busy}>
            {t.run.save}
          </Button>
          <Button look="bare" onClick={edit.leave}>
            {t.run.leave}
          </Button>
        </div>
      </form>
    );
  const begin = () => {
    setText(run.notes);
    edit.begin();
  };
  return (
    <div className={run.notes ? "flex w-full flex-col items-start gap-1" : ""}>
      {run.notes && <Text>{run.notes}</Text>}
      {may("operate") && (
        <button type="button" className="text-accent underline-offset-2 hover:underline" onClick={begin}>
          {run.notes ? t.run.editNotes : t.run.addNotes}
        </button>
      )}
    </div>
  );
}

function Text({ children }: { children: string }) {
  return (
    <div role="region" aria-label={t.run.notes} tabIndex={0} className="max-h-72 w-full overflow-auto rounded-md bg-well px-3 py-2 text-sm break-words whitespace-pre-wrap text-ink">
      {children}
    </div>
  );
}
