import { expect, test } from "vitest";
import { brief, mended, placeOf, readSteps, sketch, writeSteps } from "./steps";

const STEPS = [
  { name: "tok", stage: "tokenizer" },
  { name: "base", stage: "base", overrides: { depth: 4 }, gpus: 2 },
  { name: "core", stage: "base_eval", optional: true },
  { name: "mid", stage: "mid", parent: "base" },
];

test("steps are written one a line and read back", () => {
  const text = writeSteps(STEPS);
  expect(text.split("\n")).toHaveLength(STEPS.length + 2);
  expect(text).toContain('"name": "tok", "stage": "tokenizer"');
  expect(readSteps(text).steps).toEqual(STEPS);
  expect(readSteps(`{"name": "mine", "steps": ${text}}`).steps).toEqual(STEPS);
  expect(writeSteps([])).toBe("[]");
});

test("what is no list of steps says why", () => {
  for (const text of ["", "[{]"]) expect(readSteps(text)).toMatchObject({ steps: null, fault: expect.stringMatching(/JSON/) as string });
  for (const text of ["{}", "7", "null"]) expect(readSteps(text)).toEqual({ steps: null, fault: "" });
});

test("fields that say nothing are left out", () => {
  const full = { name: "tok", stage: "tokenizer", config: null, overrides: {}, parent: null, checkpoint: "last", gpus: null, nodes: 1, min_nodes: null, optional: false };
  expect(brief(full)).toEqual({ name: "tok", stage: "tokenizer" });
  expect(brief({ ...full, checkpoint: "step:3", gpus: 0, nodes: 2, optional: true })).toEqual({ name: "tok", stage: "tokenizer", checkpoint: "step:3", gpus: 0, nodes: 2, optional: true });
});

test("a step starts from the one it names, else from the one before it", () => {
  expect(sketch(STEPS).map(({ parent }) => parent)).toEqual([null, "0", "1", "1"]);
  expect(sketch(STEPS)[1]?.told).toEqual(["gpus = 2", "depth = 4"]);
});

test("whatever is written can be drawn: no later step, no step itself, no nonsense is a parent", () => {
  const wild = sketch([{ name: "a", parent: "a" }, { name: "b", parent: "c" }, 7, null, { name: "c", parent: 3, overrides: "x" }]);
  expect(wild.map(({ parent }) => parent)).toEqual([null, null, "1", "2", null]);
});

test("a problem is about the step it points into, by place or by name, and its nearest value goes there", () => {
  const inside = { pointer: "/steps/1/config", message: "", nearest: "tiny" };
  const beside = { pointer: "/overrides/base/depth", message: "", nearest: 8 };
  expect(placeOf(inside, STEPS)).toEqual({ index: 1, path: ["config"] });
  expect(placeOf(beside, STEPS)).toEqual({ index: 1, path: ["overrides", "depth"] });
  for (const pointer of ["/name", "/steps/9/config", "/overrides/none/depth", ""]) expect(placeOf({ pointer, message: "" }, STEPS)).toBe(null);
  const isField = (_: string, name: string) => ["vocab_size", "depth"].includes(name);
  expect(mended(STEPS, { index: 0, path: ["overrides", "vocab_size"] }, 512, isField)[0]).toEqual({ ...STEPS[0], overrides: { vocab_size: 512 } });
  expect(mended([{ stage: "base", overrides: { depht: 4, seed: 1 } }], { index: 0, path: ["overrides", "depht"] }, "depth", isField)).toEqual([
    { stage: "base", overrides: { depth: 4, seed: 1 } },
  ]);
  expect(STEPS[0]).not.toHaveProperty("overrides");
});
