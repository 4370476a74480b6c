import { expect, test } from "vitest";
import { tell } from "./events";

test.each([
  ["warning", { message: "out of memory: device_batch_size 8 → 4" }, "Warning", "out of memory: device_batch_size 8 → 4", true],
  ["phase", { phase: "resume", steps: 300 }, "Phase", "goes on from a checkpoint", false],
  ["phase", { phase: "something new" }, "Phase", "something new", false],
  ["checkpoint", { path: "base_checkpoints/r1/step_000150", bytes: 47_185_920 }, "Checkpoint", "base_checkpoints/r1/step_000150, 45.0 MiB", false],
  ["checkpoint", { path: "base_checkpoints/r1/step_000100", removed: true }, "Checkpoint", "base_checkpoints/r1/step_000100 removed, to make room", false],
  ["eval", { name: "core", values: { hellaswag: 0.25, arc: 0.5 } }, "Evaluation", "core, hellaswag 0.25, arc 0.5", false],
  ["end", { status: "stopped" }, "End", "stopped, as it was asked to", false],
  ["unheard", { of: 1 }, "unheard", '{"of":1}', false],
])("%s %j is told", (kind, data, called, text, warns) => expect(tell({ kind, data })).toEqual({ kind: called, text, warns }));

test("what a trainer left out, or wrote as something else, breaks nothing", () => {
  for (const kind of ["warning", "phase", "checkpoint", "eval", "end"]) expect(tell({ kind, data: { message: 1, phase: null, values: "x", path: [] } }).text).toBeTypeOf("string");
});
