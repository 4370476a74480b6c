/** Curves as they are drawn: arrays of doubles, so that a point takes 16 bytes and a longer curve may be a longer view
 *  of the same memory. */

/** Points in order of x; y is NaN where nothing was measured. */
export type Curve = { readonly key: string; readonly x: Float64Array; readonly y: Float64Array };

/** What charts take as well: numbers with null (or undefined) in gaps, as `uPlot.join` makes them. */
export type Values = Float64Array | readonly (number | null | undefined)[];

export const isGap = (value: number | null | undefined): boolean => value == null || Number.isNaN(value);

/** The first `count` doubles of `room`, or of a new one where that is too small. */
export const fill = (room: Float64Array | undefined, count: number): Float64Array =>
  room && room.length >= count ? room.subarray(0, count) : new Float64Array(count);
