/** Where files are dropped or chosen. What a file is, its ending and its first line say, unless the user does. */
import { type DragEvent, useRef, useState } from "react";
import { uploads } from "../../live/uploads";
import { type Kind, KINDS } from "../../lib/files";
import { t } from "../../texts";
import { Button } from "../../ui/basics";

export function DropZone() {
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const [kind, setKind] = useState<Kind | "">("");
  const take = (files: FileList | null) => files && uploads.add(files, kind || null);
  const drag = (event: DragEvent, inside: boolean) => {
    event.preventDefault();
    setOver(inside);
  };
  return (
    <div
      onDragOver={(event) => drag(event, true)}
      onDragLeave={(event) => drag(event, false)}
      onDrop={(event) => {
        drag(event, false);
        take(event.dataTransfer.files);
      }}
      className={`flex flex-col items-center gap-3 rounded-lg border-2 border-dashed px-4 py-8 text-center ${over ? "border-accent bg-well" : "border-line bg-card"}`}
    >
      <p>{t.files.drop}</p>
      <div className="flex flex-wrap items-center justify-center gap-3">
        <Button look="primary" onClick={() => input.current?.click()}>
          {t.files.choose}
        </Button>
        <label className="flex items-center gap-2 text-soft">
          {t.files.as}
          <select className="field text-ink" value={kind} onChange={(event) => setKind(event.target.value as Kind | "")}>
            <option value="">{t.files.guess}</option>
            {KINDS.map((one) => (
              <option key={one} value={one}>
                {t.files.kind[one]}
              </option>
            ))}
          </select>
        </label>
      </div>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        aria-label={t.files.choose}
        accept=".jsonl,.txt,.md,.parquet,.py,.json"
        onChange={(event) => {
          take(event.target.files);
          event.target.value = ""; // the same file may be chosen again
        }}
      />
      <p className="max-w-2xl text-xs text-soft">{t.files.hint}</p>
    </div>
  );
}
