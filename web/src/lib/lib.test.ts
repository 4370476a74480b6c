import { expect, test } from "vitest";
import { at, problemFrom } from "../api/problems";
import type { Run, RunState } from "../api/types";
import { ago, bytes, compact, duration, number, percent } from "./format";
import { scaleOf } from "./axis";
import { drawable, measured } from "./curve";
import { withDetail } from "./detail";
import { changed, parseValue, toOverrides, toText } from "./overrides";
import { actions, latestLoss, progress, secondsLeft, steps } from "./runs";
import { sorted } from "./sorting";
import { decay, smooth } from "./smooth";

test.each([
  [3.14159, "3.142"],
  [0.000012, "1.20e-5"],
  [12345.6, "12,346"],
  [0, "0"],
  [null, "–"],
  [Number.NaN, "–"],
])("number %s reads %s", (value, text) => expect(number(value)).toBe(text));

test.each([
  [59.4, "59 s"],
  [60, "1 min 00 s"],
  [3599.6, "1 h 00 min"],
  [86_400, "1 d 0 h"],
  [null, "–"],
])("%s seconds read %s", (seconds, text) => expect(duration(seconds)).toBe(text));

test("sizes and shares", () => {
  expect(bytes(45 * 2 ** 20)).toBe("45.0 MiB");
  expect(bytes(0)).toBe("0 B");
  expect(percent(0.974)).toBe("97 %");
  expect(compact(39_512)).toBe("39.5K");
  expect(ago("2026-01-01T00:00:00Z", Date.parse("2026-01-01T00:05:10Z"))).toBe("5 min ago");
});

test("a smoothed straight line is itself, at its ends too: no lag", () => {
  const line = Float64Array.from({ length: 401 }, (_, i) => 10 - i / 50);
  smooth(line, 0.9).forEach((value, i) => expect(value).toBeCloseTo(line[i] as number, 9));
  smooth(line, 0.99999).forEach((value, i) => expect(value).toBeCloseTo(line[i] as number, 5));
});

test("every smoothed point is on the line of least squares through its weighted neighbours", () => {
  const values = Array.from({ length: 60 }, (_, i) => (i % 7 === 3 ? null : 3 + 6 * Math.exp(-i / 8) + Math.sin(i * i)));
  const known = values.filter((value) => value !== null);
  const fitted = known.map((_, at) => {
    const points = known.map((v, i) => ({ w: 0.8 ** Math.abs(i - at), d: i - at, v }));
    const sum = (of: (p: { w: number; d: number; v: number }) => number) => points.reduce((total, point) => total + of(point), 0);
    const [w, d, v] = [sum((p) => p.w), sum((p) => p.w * p.d), sum((p) => p.w * p.v)];
    const slope = sum((p) => p.w * (p.d - d / w) * p.v) / sum((p) => p.w * (p.d - d / w) ** 2);
    return v / w - (slope * d) / w;
  });
  smooth(values, 0.8)
    .filter((value) => !Number.isNaN(value))
    .forEach((value, i) => expect(value).toBeCloseTo(fitted[i] as number, 9));
});

test("a spike near the end makes no smoothed value lower than all values", () => {
  const values = Array.from({ length: 30 }, (_, i) => (i === 25 ? 10 : 0.1));
  for (const weight of [0.1, 0.5, 0.9, 0.999]) expect(Math.min(...smooth(values, weight))).toBeGreaterThanOrEqual(0.1);
});

test("uPlot gets null in gaps, undefined where another curve was measured, and the same memory where nothing is to be changed", () => {
  expect(drawable([1, undefined, NaN, null, 0], false)).toEqual([1, undefined, null, null, 0]);
  expect(drawable([1, undefined, NaN, null, 0], true)).toEqual([1, undefined, null, null, null]);
  const whole = Float64Array.of(3, 2, 1);
  expect([drawable(whole, false), drawable(whole, true)]).toEqual([whole, whole]);
  expect(drawable(whole, true)).toBe(whole);
  expect(drawable(Float64Array.of(3, NaN, -1), true)).toEqual([3, null, null]);
});

test("steps without a token count are no knots of the axis", () => {
  const { x, y } = measured({ key: "train/tokens", x: Float64Array.of(0, 1, 2), y: Float64Array.of(0, NaN, 20) });
  expect(scaleOf("tokens", { step: x, at: y }).place(1)).toBe(10);
});

test("smoothing reaches over a share of the run", () => {
  expect(decay(0, 1000)).toBe(0);
  expect(decay(0.6, 40)).toBeLessThan(decay(0.6, 4000));
  expect(decay(1, 1e9)).toBeLessThan(1);
});

test("smoothing weight 0 changes nothing and gaps stay gaps", () => {
  expect([...smooth([1, null, 5], 0)]).toEqual([1, NaN, 5]);
  expect(smooth([1, null, 5], 0.5)[1]).toBeNaN();
  expect([...smooth([2, null, 2, 2], 0.5)]).toEqual([2, NaN, 2, 2]);
  expect(smooth(Float64Array.of(2, NaN, 2, 2), 0.5)).toEqual(smooth([2, null, 2, 2], 0.5));
});

test("what is smoothed stands where it stood before, as long as there is room", () => {
  const room = new Float64Array(4).fill(77);
  const once = smooth([1, null, 5], 0.5, room);
  expect([once.buffer === room.buffer, [...once]]).toEqual([true, [...smooth([1, null, 5], 0.5)]]);
  expect(smooth([1, 2, 3, 4, 5], 0.5, room).buffer).not.toBe(room.buffer);
});

const fields = {
  depth: { type: "integer" },
  data: { type: "string" },
  dtype: { enum: ["auto", "float32"], type: "string" },
  limit: { anyOf: [{ type: "integer" }, { type: "null" }] },
  flag: { type: "boolean" },
};

test("the text of a field is read as the field's type", () => {
  const values = { depth: " 4 ", data: "42", dtype: "auto", limit: "null", flag: "True", unknown: "0.5", empty: " " };
  expect(toOverrides(values, fields)).toEqual({ depth: 4, data: "42", dtype: "auto", limit: null, flag: true, unknown: 0.5 });
});

test("what is no JSON goes to the service as text, so that it can say what is wrong", () => {
  expect(parseValue("four", fields.depth)).toBe("four");
  expect(toText(512)).toBe("512");
});

test("a problem document and an OpenAI error are both problems", () => {
  const problem = problemFrom(422, { code: "invalid_config", detail: "bad", errors: [{ pointer: "/overrides/depth", message: "m", nearest: 1 }] });
  expect(problem).toMatchObject({ status: 422, code: "invalid_config", message: "bad" });
  expect(at(problem, "/overrides")).toHaveLength(1);
  expect(at(problem, "/overrides/dep")).toHaveLength(0);
  expect(problemFrom(404, { error: { message: "no model", code: "model_not_found" } })).toMatchObject({ code: "model_not_found", message: "no model" });
  expect(problemFrom(502, "<html>").message).toContain("502");
});

function run(change: Partial<Run>): Run {
  return { state: "running", desired: "run", summary: {}, step: null, steps: null, ...change } as Run;
}

test("progress and time left need a step and a length", () => {
  expect(progress(run({ step: 150, steps: 300 }))).toBe(0.5);
  expect(progress(run({ step: 150 }))).toBeNull();
  expect(progress(run({ state: "succeeded" }))).toBe(1);
  expect(secondsLeft(run({ step: 100, steps: 300, summary: { "train/dt_ms": 50 } }))).toBe(10);
  expect(secondsLeft(run({ state: "failed", step: 100, steps: 300, summary: { "train/dt_ms": 50 } }))).toBeNull();
  expect(steps(run({ state: "succeeded", step: 299, steps: 300 }))).toBe("300 / 300");
  expect(latestLoss(run({ summary: { "sft/loss": 1.5, "train/mfu": 0.3 } }))).toBe(1.5);
});

test.each<[RunState, Run["desired"], string[]]>([
  ["queued", "run", ["pause", "cancel"]],
  ["running", "run", ["pause", "cancel"]],
  ["running", "cancel", []],
  ["stopping", "pause", ["cancel"]],
  ["paused", "pause", ["resume", "cancel"]],
  ["failed", "run", ["retry"]],
  ["cancelled", "cancel", ["retry"]],
  ["succeeded", "run", []],
])("a run that is %s and should %s offers %j", (state, desired, offered) => {
  expect(actions(run({ state, desired }))).toEqual(offered);
});

test("a copy of a run is told what the run was told beside its preset, but not its name", () => {
  const config = { depth: 6, data: "x", run: "mine", flag: false };
  expect(changed(config, { depth: 4, data: "x", run: "", flag: true })).toEqual({ depth: "6", flag: "false" });
});

test("an axis finds the place of a step and the step of a place, also beyond what was measured", () => {
  const knots = { step: [0, 10, 20], at: [0, 100, 400] };
  const scale = scaleOf("flops", knots, 2);
  expect([0, 5, 15, 30].map(scale.place)).toEqual([0, 100, 500, 1400]);
  expect([100, 500, 1400].map(scale.step)).toEqual([5, 15, 30]);
  expect(scaleOf("tokens", { step: [3], at: [9] }).axis).toBe("step");
});

test("what is known better replaces what it lies in, and live points after it stay", () => {
  const coarse = { key: "a", x: Float64Array.of(0, 10, 20, 30, 40), y: Float64Array.of(0, 1, 2, 3, 4) };
  const fine = { key: "a", x: [9, 15, 21], y: [7, null, 9] };
  const joined = withDetail(coarse, fine);
  expect([[...joined.x], [...joined.y]]).toEqual([[0, 9, 15, 21, 30, 40], [0, 7, NaN, 9, 3, 4]]);
  expect(withDetail(coarse, undefined)).toBe(coarse);
});

test("a table is sorted by a column, and what has no value stands last either way", () => {
  const row = (id: string, loss?: number) => ({ id, state: "running", name: id, tags: [], summary: loss === undefined ? {} : { "train/loss": loss } }) as unknown as Run;
  const rows = [row("a", 2), row("none"), row("b", 1)];
  expect(sorted(rows, { column: "loss", up: true }).map(({ id }) => id)).toEqual(["b", "a", "none"]);
  expect(sorted(rows, { column: "loss", up: false }).map(({ id }) => id)).toEqual(["a", "b", "none"]);
});
