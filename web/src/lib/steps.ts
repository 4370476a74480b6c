/** The steps of a pipeline as text that people edit, and what of it can be drawn before the service has seen it. */
import type { ProblemItem } from "../api/problems";

/** What is drawn of a step; `id` is its place, since names may be missing or double while somebody writes. */
export type Sketch = { id: string; parent: string | null; name: string; stage: string; config: string; told: string[]; optional: boolean };

/** The steps in a text, or why there are none: empty when it is JSON, but no list. A file of configs/pipelines will do too: its `steps` are taken. */
export function readSteps(text: string): { steps: unknown[] | null; fault: string } {
  try {
    const read: unknown = JSON.parse(text);
    const steps = Array.isArray(read) ? (read as unknown[]) : objectOf(read)["steps"];
    return Array.isArray(steps) ? { steps: steps as unknown[], fault: "" } : { steps: null, fault: "" };
  } catch (error) {
    return { steps: null, fault: error instanceof Error ? error.message : String(error) };
  }
}

/** A step a line; what says nothing is left out. */
export function writeSteps(steps: readonly unknown[]): string {
  const line = (step: unknown) => JSON.stringify(step, null, 1).replace(/\n\s*/g, " ");
  return steps.length ? `[\n${steps.map((step) => `  ${line(step)}`).join(",\n")}\n]` : "[]";
}

/** Without the fields that are as the service takes them anyway. */
export function brief(step: object): object {
  const plain: Record<string, unknown> = { checkpoint: "last", nodes: 1, optional: false };
  const idle = (key: string, value: unknown) => value === null || value === plain[key] || (typeof value === "object" && Object.keys(value).length === 0);
  return Object.fromEntries(Object.entries(step).filter(([key, value]) => !idle(key, value)));
}

/** A step starts from the earlier one that it names, else from the one before it: as on the service. */
export function sketch(steps: readonly unknown[]): Sketch[] {
  const all = steps.map(objectOf);
  return all.map((step, index) => {
    const named = step["parent"] == null ? index - 1 : all.slice(0, index).findIndex(({ name }) => name === step["parent"]);
    const told = Object.entries(objectOf(step["overrides"])).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
    return {
      id: String(index),
      parent: named < 0 ? null : String(named),
      name: textOf(step["name"]),
      stage: textOf(step["stage"]),
      config: textOf(step["config"]),
      told: step["gpus"] == null ? told : [`gpus = ${JSON.stringify(step["gpus"])}`, ...told],
      optional: step["optional"] === true,
    };
  });
}

/** Which step a problem is about, and what in it; null: about none of them. */
export function placeOf(item: ProblemItem, steps: readonly unknown[]): { index: number; path: string[] } | null {
  const [room, which = "", ...path] = item.pointer.split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  if (room === "steps" && Number(which) in steps) return { index: Number(which), path };
  const index = room === "overrides" ? steps.findIndex((step) => objectOf(step)["name"] === which) : -1;
  return index < 0 ? null : { index, path: ["overrides", ...path] };
}

/** The steps with the nearest good value where a problem is. `isField`: whether a stage has a config field of that
 *  name; of one that has not, the nearest is another name. */
export function mended(
  steps: readonly unknown[],
  { index, path }: { index: number; path: string[] },
  nearest: unknown,
  isField: (stage: string, name: string) => boolean,
): unknown[] {
  const all = structuredClone([...steps]);
  const step = all[index] as Record<string, unknown>;
  let at = step;
  for (const part of path.slice(0, -1)) at = (at[part] ??= {}) as Record<string, unknown>;
  const key = path.at(-1) as string;
  const misnamed = path.length === 2 && path[0] === "overrides" && !isField(textOf(step["stage"]), key);
  if (misnamed) step["overrides"] = Object.fromEntries(Object.entries(at).map(([name, value]) => [name === key ? String(nearest) : name, value]));
  else at[key] = nearest;
  return all;
}

const objectOf = (value: unknown): Record<string, unknown> => (value && typeof value === "object" ? (value as Record<string, unknown>) : {});
const textOf = (value: unknown): string => (typeof value === "string" ? value : "");
