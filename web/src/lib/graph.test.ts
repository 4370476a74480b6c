import { expect, test } from "vitest";
import { layout } from "./graph";

const steps = (...pairs: string[]) => pairs.map((pair) => ({ id: pair.split("<")[0] as string, parent: pair.split("<")[1] ?? null }));
const drawn = (...pairs: string[]) => {
  const { places } = layout(steps(...pairs));
  return Object.fromEntries([...places].map(([id, { column, row }]) => [id, `${column}/${row}`]));
};

test("a chain is one row", () => {
  expect(drawn("tokenizer", "base<tokenizer", "sft<base")).toEqual({ tokenizer: "0/0", base: "1/0", sft: "2/0" });
  expect(layout(steps("tokenizer", "base<tokenizer")).edges).toEqual([["tokenizer", "base"]]);
});

test("the longest chain keeps its row, evaluations stand below what they measure", () => {
  const places = drawn("t", "base<t", "core<base", "mid<base", "mid_eval<mid", "sft<mid", "sft_eval<sft", "rl<sft", "rl_eval<rl");
  expect(places).toEqual({ t: "0/0", base: "1/0", mid: "2/0", sft: "3/0", rl: "4/0", rl_eval: "5/0", core: "2/1", mid_eval: "3/1", sft_eval: "4/1" });
});

test("no two steps share a place, whatever hangs on what", () => {
  const wild = steps("a", "b<a", "c<a", "d<a", "e<b", "f<c", "g<c", "h<elsewhere", "i<h", "j<i", "k<d");
  const { places, columns, rows } = layout(wild);
  expect(new Set([...places.values()].map(({ column, row }) => `${column}/${row}`)).size).toBe(wild.length);
  for (const { id, parent } of wild) {
    const [here, before] = [places.get(id), places.get(parent ?? "")];
    if (before) expect(here?.column).toBe(before.column + 1);
    expect(here && here.column < columns && here.row < rows).toBe(true);
  }
  expect(layout([])).toMatchObject({ columns: 0, rows: 0 });
});
