import { expect, test } from "vitest";
import { plain, spans } from "./ansi";

test("colours become classes and the codes disappear", () => {
  expect(spans("a\x1b[31mred\x1b[0m b")).toEqual([
    { text: "a", style: "" },
    { text: "red", style: "ansi-bad" },
    { text: " b", style: "" },
  ]);
});

test("bold and dim combine with a colour and end on their own", () => {
  expect(spans("\x1b[1;32mok\x1b[22m fine")).toEqual([
    { text: "ok", style: "ansi-good font-semibold" },
    { text: " fine", style: "ansi-good" },
  ]);
});

test("a truecolor code does not swallow what follows it", () => {
  expect(spans("\x1b[38;2;10;20;30;1mx")).toEqual([{ text: "x", style: "font-semibold" }]);
  expect(spans("\x1b[38;5;1mx")).toEqual([{ text: "x", style: "ansi-bad" }]);
});

test.each([
  ["a title", "\x1b]0;owned\x07safe"],
  ["a link", "\x1b]8;;https://example.org\x1b\\safe\x1b]8;;\x1b\\"],
  ["cursor movement", "\x1b[2J\x1b[1;1Hsafe"],
  ["a device string", "\x1bPq#0\x1b\\safe"],
  ["an unfinished sequence", "safe\x1b["],
  ["eight-bit controls and a bell", "\x9b\x07s\x00afe"],
])("%s leaves only its text", (_, line) => {
  expect(plain(line)).toBe("safe");
});

test("markup stays text", () => {
  expect(spans("<img src=x onerror=alert(1)>")).toEqual([{ text: "<img src=x onerror=alert(1)>", style: "" }]);
});

test("a progress bar shows what it showed last", () => {
  expect(plain("10 %\r50 %\r100 %")).toBe("100 %");
  expect(plain("windows line\r")).toBe("windows line");
});
