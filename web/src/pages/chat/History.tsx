/** Earlier conversations of this browser. */
import { ago } from "../../lib/format";
import { type Conversation, titleOf } from "../../lib/history";
import { t } from "../../texts";
import { Button } from "../../ui/basics";

type Props = { history: readonly Conversation[]; current: string; onShow: (conversation: Conversation | null) => void; onForget: (id: string) => void };

export function History({ history, current, onShow, onForget }: Props) {
  return (
    <div className="flex flex-col gap-2">
      <Button onClick={() => onShow(null)}>{t.chat.fresh}</Button>
      {history.length > 0 && <p className="px-2 text-xs text-soft">{t.chat.kept}</p>}
      <ul className="flex flex-col">
        {history.map((conversation) => (
          <li key={conversation.id} className={`flex items-center gap-1 rounded-md hover:bg-well ${conversation.id === current ? "bg-well" : ""}`}>
            <button type="button" className="min-w-0 flex-1 px-2 py-1 text-left" aria-current={conversation.id === current} onClick={() => onShow(conversation)}>
              <span className="block truncate">{titleOf(conversation)}</span>
              <span className="text-xs text-soft">{ago(new Date(conversation.at).toISOString())}</span>
            </button>
            <Button look="bare" aria-label={t.chat.forget(titleOf(conversation))} onClick={() => onForget(conversation.id)}>
              ✕
            </Button>
          </li>
        ))}
      </ul>
    </div>
  );
}
