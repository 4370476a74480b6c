/** A run's tags, and how they are changed. */
import { type FormEvent, useState } from "react";
import { usePatchRun } from "../../api/queries";
import { may } from "../../api/session";
import type { Run } from "../../api/types";
import { Link } from "../../router";
import { t } from "../../texts";
import { Button, Failure } from "../../ui/basics";

export function Tags({ run }: { run: Run }) {
  const [text, setText] = useState<string | null>(null);
  const patch = usePatchRun();
  const save = (event: FormEvent) => {
    event.preventDefault();
    const tags = [...new Set((text ?? "").split(",").map((tag) => tag.trim()).filter(Boolean))];
    patch.mutate({ run_id: run.id, tags }, { onSuccess: () => setText(null) });
  };
  if (text !== null)
    return (
      <form onSubmit={save} className="flex flex-wrap items-center gap-2">
        <input autoFocus aria-label={t.run.tags} placeholder={t.run.tags} className="field py-0.5" value={text} onChange={(event) => setText(event.target.value)} />
        <Button type="submit" look="bare" disabled={patch.isPending}>
          {t.run.save}
        </Button>
        {patch.error && <Failure error={patch.error} />}
      </form>
    );
  return (
    <span className="flex flex-wrap items-center gap-x-2 gap-y-1">
      {run.tags.map((tag) => (
        <Link key={tag} to={`/runs?tag=${encodeURIComponent(tag)}`} className="rounded bg-well px-1.5 text-ink hover:underline">
          {tag}
        </Link>
      ))}
      {may("operate") && (
        <button type="button" className="text-accent underline-offset-2 hover:underline" onClick={() => setText(run.tags.join(", "))}>
          {t.run.editTags}
        </button>
      )}
    </span>
  );
}
