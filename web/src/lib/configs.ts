/** In what runs differ that were told different things. */
import type { Run } from "../api/types";

/** One value for each run; undefined where its stage has no such field. */
export type Difference = { key: string; values: unknown[] };

/** Names of a run: they differ always and explain nothing. */
const NAMES = ["run", "model_tag"];

export function differences(runs: readonly Pick<Run, "config">[]): Difference[] {
  const keys = [...new Set(runs.flatMap(({ config }) => Object.keys(config)))];
  return keys
    .filter((key) => !NAMES.includes(key))
    .map((key) => ({ key, values: runs.map(({ config }) => config[key]) }))
    .filter(({ values }) => new Set(values.map((item) => JSON.stringify(item))).size > 1);
}
