/** What a person asked; it can be changed and asked again, which forgets what came after it. */
import { type KeyboardEvent, useState } from "react";
import { t } from "../../texts";
import { Button } from "../../ui/basics";

export function Question({ text, busy, onResend }: { text: string; busy: boolean; onResend: (text: string) => void }) {
  const [draft, setDraft] = useState<string | null>(null);
  const resend = () => {
    if (!draft?.trim()) return;
    setDraft(null);
    onResend(draft.trim());
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Escape") setDraft(null);
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    resend();
  };
  if (draft !== null)
    return (
      <div className="flex w-full flex-col items-end gap-2">
        <textarea autoFocus rows={3} aria-label={t.chat.edit} className="field w-full" value={draft} onChange={(event) => setDraft(event.target.value)} onKeyDown={onKey} />
        <span className="flex gap-2">
          <Button onClick={() => setDraft(null)}>{t.chat.keep}</Button>
          <Button look="primary" onClick={resend}>
            {t.chat.resend}
          </Button>
        </span>
      </div>
    );
  return (
    <div className="group flex max-w-[85%] flex-col items-end">
      <div className="rounded-2xl rounded-br-sm bg-well px-4 py-2 break-words whitespace-pre-wrap">
        <span className="sr-only">{t.chat.you}: </span>
        {text}
      </div>
      <Button look="bare" className="text-xs" disabled={busy} onClick={() => setDraft(text)}>
        {t.chat.edit}
      </Button>
    </div>
  );
}
