import { expect, test } from "vitest";
import { runsOfTokens, visible } from "./tokens";

test("neighbours that count alike are together", () => {
  const tokens = [false, true, true, false].map((counts, id) => ({ counts, id }));
  expect(runsOfTokens(tokens).map((run) => run.tokens.map(({ id }) => id))).toEqual([[0], [1, 2], [3]]);
  expect(runsOfTokens([])).toEqual([]);
});

test("what has no shape gets one, and lines still end", () => {
  expect(visible("a\n\tb")).toBe("a↵\n⇥\tb");
  expect(visible("a\r\nb\rc")).toBe("a␍↵\nb␍c");
  expect(visible("\u0000\u001b[31m\u007f")).toBe("␀␛[31m␡");
  expect(visible("你 好")).toBe("你 好");
});
