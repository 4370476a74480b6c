/** The curve behind the noise. */

/** How far a point's weight reaches, from a slider's 0…1: a share of the run, so that short and long runs look
 *  alike. 0: no smoothing. */
export function decay(strength: number, points: number): number {
  const reach = strength ** 2 * points * 0.1;
  return reach / (1 + reach);
}

/** Every point becomes the mean of its neighbours on both sides, weighted by `weight` per step away. Looking both
 *  ways, it does not lag behind a falling loss. Gaps stay gaps. */
export function smooth(values: readonly (number | null)[], weight: number): (number | null)[] {
  const sums = new Float64Array(values.length);
  const masses = new Float64Array(values.length);
  const pass = (from: number, by: 1 | -1) => {
    let sum = 0;
    let mass = 0;
    for (let i = from; i >= 0 && i < values.length; i += by) {
      const value = values[i];
      if (value == null || !Number.isFinite(value)) continue;
      // what came before, without the point itself, so that the two passes count it once
      sums[i] = (sums[i] as number) + sum;
      masses[i] = (masses[i] as number) + mass;
      sum = weight * (sum + value);
      mass = weight * (mass + 1);
    }
  };
  pass(0, 1);
  pass(values.length - 1, -1);
  return values.map((value, i) => {
    if (value == null || !Number.isFinite(value)) return null;
    return ((sums[i] as number) + value) / ((masses[i] as number) + 1);
  });
}
