/** What lies under a chart: steps, or what those steps amount to. Everything is stored by step; the other axes are
 *  piecewise linear maps of it, so that a live point and a marker find their place at once. */

export const AXES = ["step", "tokens", "flops", "time"] as const;
export type Axis = (typeof AXES)[number];

/** Pairs in order of step: at `step[i]` the axis shows `at[i]`. */
export type Knots = { step: ArrayLike<number>; at: ArrayLike<number> };

/** Where `value` of `from` lies on `to`; beyond the ends the line goes on. Both rise. */
export function between(from: ArrayLike<number>, to: ArrayLike<number>, value: number): number {
  const last = from.length - 1;
  if (last < 0) return value;
  if (last === 0) return to[0] as number;
  let low = 0;
  let high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((from[middle] as number) <= value) low = middle;
    else high = middle;
  }
  const [x0, x1, y0, y1] = [from[low], from[high], to[low], to[high]] as [number, number, number, number];
  return x1 === x0 ? y0 : y0 + ((value - x0) * (y1 - y0)) / (x1 - x0);
}

export type Scale = { axis: Axis; place: (step: number) => number; step: (place: number) => number };

/** `factor` multiplies what the knots say: FLOPs are tokens times FLOPs per token. */
export function scaleOf(axis: Axis, knots: Knots | null, factor = 1): Scale {
  if (axis === "step" || !knots || knots.step.length < 2) return { axis: "step", place: (step) => step, step: (place) => place };
  return {
    axis,
    place: (step) => between(knots.step, knots.at, step) * factor,
    step: (place) => between(knots.at, knots.step, place / factor),
  };
}
