/** Where the steps of a pipeline stand when it is drawn: a column for each step away from the first, the longest
 *  chain in one row, what branches off in the rows below. */

export type Place = { column: number; row: number };
export type Layout = { places: ReadonlyMap<string, Place>; edges: readonly (readonly [from: string, to: string])[]; columns: number; rows: number };

type Step = { id: string; parent?: string | null };

export function layout(steps: readonly Step[]): Layout {
  const ids = new Set(steps.map(({ id }) => id));
  const children = new Map<string | null, string[]>();
  for (const { id, parent } of steps) {
    // what starts from a run of another pipeline begins a row of its own
    const from = parent && ids.has(parent) ? parent : null;
    children.set(from, [...(children.get(from) ?? []), id]);
  }
  const after = (id: string | null) => children.get(id) ?? [];
  const length = (id: string): number => 1 + Math.max(0, ...after(id).map(length));
  const longestFirst = (found: readonly string[]) => found.toSorted((a, b) => length(b) - length(a));

  const places = new Map<string, Place>();
  const taken = new Set<string>();
  const free = (column: number, row: number, count: number) => Array.from({ length: count }, (_, i) => !taken.has(`${column + i} ${row}`)).every(Boolean);
  const put = (id: string, column: number, row: number): void => {
    places.set(id, { column, row });
    taken.add(`${column} ${row}`);
    for (const [i, next] of longestFirst(after(id)).entries()) put(next, column + 1, i === 0 ? row : below(column + 1, row + 1, length(next)));
  };
  const below = (column: number, row: number, count: number): number => (free(column, row, count) ? row : below(column, row + 1, count));
  for (const root of longestFirst(after(null))) put(root, 0, below(0, 0, length(root)));

  const all = [...places.values()];
  return {
    places,
    edges: [...children].flatMap(([from, to]) => (from === null ? [] : to.map((id) => [from, id] as const))),
    columns: Math.max(0, ...all.map(({ column }) => column + 1)),
    rows: Math.max(0, ...all.map(({ row }) => row + 1)),
  };
}
