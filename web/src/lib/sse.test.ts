import { expect, test } from "vitest";
import { pieces } from "./chat";
import { events } from "./sse";

function stream(...parts: (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    start(controller) {
      for (const part of parts) controller.enqueue(typeof part === "string" ? encoder.encode(part) : part);
      controller.close();
    },
  });
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of source) found.push(item);
  return found;
}

test("events may be cut anywhere, even inside a character or a line end", async () => {
  const bytes = new TextEncoder().encode('data: {"a":"né→"}\r\n\r\n: ping\n\ndata: two\ndata: lines\n\n');
  for (let cut = 1; cut < bytes.length; cut += 1)
    expect(await all(events(stream(bytes.slice(0, cut), bytes.slice(cut))))).toEqual(['{"a":"né→"}', "two\nlines"]);
});

const chunk = (delta: object, finish: string | null = null) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;

test("an answer is its deltas, its end and its usage", async () => {
  const body = stream(
    chunk({ role: "assistant", content: "" }),
    chunk({ content: "I am" }) + chunk({ content: " nanochat" }),
    chunk({}, "stop"),
    'data: {"choices":[],"usage":{"completion_tokens":4}}\n\n',
    "data: [DONE]\n\n",
  );
  expect(await all(pieces(body))).toEqual([
    { text: "I am" },
    { text: " nanochat" },
    { finish: "stop" },
    { usage: { completion_tokens: 4 } },
  ]);
});

test("half of a character is a token before there is text of it", async () => {
  const other = { token: "\ufffd", logprob: 0, bytes: [0x61, 0xbd] };
  const logprobs = { content: [{ token: "\ufffd", logprob: 0, bytes: [0xe4], top_logprobs: [other] }] };
  const half = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "" }, logprobs, finish_reason: null }] })}\n\n`;
  expect(await all(pieces(stream(half, "data: [DONE]\n\n")))).toEqual([{ text: "", tokens: [{ text: "\ufffd", p: 1, bytes: "\\xe4", others: [{ text: "\ufffd", p: 1, bytes: "a\\xbd" }] }] }]);
});

test("an error inside the stream is thrown with its message", async () => {
  const body = stream(chunk({ content: "I" }), 'data: {"error":{"message":"the engine ended","code":"engine_died"}}\n\n');
  await expect(all(pieces(body))).rejects.toMatchObject({ message: "the engine ended", code: "engine_died" });
});

test("a stream that breaks off is not taken for a short answer", async () => {
  await expect(all(pieces(stream(chunk({ content: "I am" }))))).rejects.toMatchObject({ code: "cut_off" });
});
