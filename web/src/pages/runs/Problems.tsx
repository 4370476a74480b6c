/** What is wrong with a field, and the nearest value that is not, one click away. */
import type { ProblemItem } from "../../api/problems";
import { toText } from "../../lib/overrides";
import { t } from "../../texts";

export function Problems({ items, onUse }: { items: readonly ProblemItem[]; onUse: (item: ProblemItem) => void }) {
  return items.map((item) => (
    <span key={item.pointer + item.message} role="alert" className="flex flex-wrap items-baseline gap-x-2 text-bad">
      <span className="min-w-0 break-words">{item.message}</span>
      {item.nearest !== null && item.nearest !== undefined && (
        <button type="button" className="text-accent underline underline-offset-2" onClick={() => onUse(item)}>
          {t.create.useNearest(toText(item.nearest))}
        </button>
      )}
    </span>
  ));
}
