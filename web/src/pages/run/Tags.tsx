/** A run's tags, and how they are changed. */
import { type FormEvent, useState } from "react";
import { ChangedElsewhere } from "../../api/queries";
import { may } from "../../api/session";
import type { RunRecord } from "../../api/types";
import { Link } from "../../router";
import { t } from "../../texts";
import { Button, Failure } from "../../ui/basics";
import { useRunEdit } from "./useRunEdit";

export function Tags({ run }: { run: RunRecord }) {
  const [text, setText] = useState("");
  const edit = useRunEdit(run);
  const save = (event: FormEvent) => {
    event.preventDefault();
    const tags = [...new Set(text.split(",").map((tag) => tag.trim()).filter(Boolean))];
    edit.save({ tags });
  };
  if (edit.begun)
    return (
      <form onSubmit={save} className="flex flex-wrap items-center gap-2">
        <input autoFocus aria-label={t.run.tags} placeholder={t.run.tags} className="field py-0.5" value={text} onChange={(event) => setText(event.target.value)} />
        <Button type="submit" look="bare" disabled={edit.busy}>
          {t.run.save}
        </Button>
        {edit.error && <Failure error={edit.error} />}
        {edit.error instanceof ChangedElsewhere && <span>{edit.error.now.tags.join(", ")}</span>}
      </form>
    );
  const begin = () => {
    setText(run.tags.join(", "));
    edit.begin();
  };
  return (
    <span className="flex flex-wrap items-center gap-x-2 gap-y-1">
      {run.tags.map((tag) => (
        <Link key={tag} to={`/runs?tag=${encodeURIComponent(tag)}`} className="rounded bg-well px-1.5 text-ink hover:underline">
          {tag}
        </Link>
      ))}
      {may("operate") && (
        <button type="button" className="text-accent underline-offset-2 hover:underline" onClick={begin}>
          {t.run.editTags}
        </button>
      )}
    </span>
  );
}
