/** The order of a table of runs. */
import type { Run } from "../api/types";
import { latestLoss, progress } from "./runs";

export const COLUMNS = ["state", "name", "stage", "loss", "progress", "speed", "created"] as const;
export type Column = (typeof COLUMNS)[number];
export type Sort = { column: Column; up: boolean };

export const NEWEST_FIRST: Sort = { column: "created", up: false };

const KEYS: Record<Column, (run: Run) => string | number | null | undefined> = {
  state: (run) => run.state,
  name: (run) => run.name.toLowerCase(),
  stage: (run) => run.stage,
  loss: latestLoss,
  progress,
  speed: (run) => run.summary["train/tok_per_sec"],
  created: (run) => run.created_at,
};

/** A new list; what has no value stands at the end either way. */
export function sorted(runs: readonly Run[], { column, up }: Sort): Run[] {
  const key = KEYS[column];
  const sign = up ? 1 : -1;
  return runs.toSorted((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x == null || y == null) return x == null ? (y == null ? 0 : 1) : -1;
    return x < y ? -sign : x > y ? sign : 0;
  });
}

/** Every word stands somewhere in its name, id, stage, preset or tags. */
export function matching(runs: readonly Run[], text: string): readonly Run[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return runs;
  return runs.filter((run) => {
    const about = [run.name, run.id, run.stage, run.preset ?? "", ...run.tags].join(" ").toLowerCase();
    return words.every((word) => about.includes(word));
  });
}
