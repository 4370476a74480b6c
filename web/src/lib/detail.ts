/** A series in which one part is known better: coarse points outside of it, fine ones inside. */
import type { Series } from "../api/types";

/** Live points that came after the fine ones were asked for stay. */
export function withDetail(coarse: Series, fine: Series | undefined): Series {
  if (!fine || fine.x.length === 0) return coarse;
  const [from, to] = [fine.x[0] as number, fine.x.at(-1) as number];
  const before = coarse.x.findIndex((step) => step >= from);
  const after = coarse.x.findLastIndex((step) => step <= to);
  const start = before < 0 ? coarse.x.length : before;
  return {
    key: coarse.key,
    x: [...coarse.x.slice(0, start), ...fine.x, ...coarse.x.slice(after + 1)],
    y: [...coarse.y.slice(0, start), ...fine.y, ...coarse.y.slice(after + 1)],
  };
}
