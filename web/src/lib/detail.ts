/** A series in which one part is known better: coarse points outside of it, fine ones inside. */
import type { Series } from "../api/types";
import type { Curve } from "./curve";

/** Live points that came after the fine ones were asked for stay. */
export function withDetail(coarse: Curve, fine: Series | undefined): Curve {
  if (!fine || fine.x.length === 0) return coarse;
  const [from, to] = [fine.x[0] as number, fine.x.at(-1) as number];
  const before = coarse.x.findIndex((step) => step >= from);
  const after = coarse.x.findLastIndex((step) => step <= to);
  const start = before < 0 ? coarse.x.length : before;
  const around = (values: Float64Array, inside: readonly (number | null)[]) =>
    Float64Array.from([...values.subarray(0, start), ...inside.map((value) => value ?? NaN), ...values.subarray(after + 1)]);
  return { key: coarse.key, x: around(coarse.x, fine.x), y: around(coarse.y, fine.y) };
}
