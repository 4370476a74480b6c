import { expect, test } from "vitest";
import { guessKind, plainName, settings, uses } from "./files";
import { Sha256 } from "./sha256";

const encode = (text: string) => new TextEncoder().encode(text);
const hex = (buffer: ArrayBuffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

test.each([
  ["", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
  ["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
  ["abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"],
])("the digest of %j is the one of the standard", (text, digest) => expect(new Sha256().add(encode(text)).hex()).toBe(digest));

test("a digest in pieces is the digest of the whole, for every length around a block", async () => {
  for (let length = 0; length < 200; length += 1) {
    const data = Uint8Array.from({ length }, (_, i) => (i * 37 + length) % 256);
    const expected = hex(await crypto.subtle.digest("SHA-256", data));
    const pieces = new Sha256();
    for (let at = 0; at < length; at += 1 + (length % 67)) pieces.add(data.subarray(at, at + 1 + (length % 67)));
    expect(pieces.hex()).toBe(expected);
  }
});

test.each([
  ["My Books (2).TXT", "my-books-2.txt"],
  ["Été.jsonl", "ete.jsonl"],
  ["..hidden.md", "hidden.md"],
  [`${"x".repeat(100)}.parquet`, `${"x".repeat(56)}.parquet`],
  ["语料.txt", ""],
  ["README", ""],
])("%s is called %s, as the service would have it", (text, name) => expect(plainName(text)).toBe(name));

const file = (name: string, text: string) => Object.assign(new Blob([text]), { name });

test.each([
  ["a.py", "depth = 1", "preset"],
  ["A.JSON", '{"depth": 1}', "preset"],
  ["a.MD", "# x", "text"],
  ["a.jsonl", '\n{"text": "x"}', "text"],
  ["a.jsonl", '{"messages": []}', "conversations"],
  ["a.jsonl", "[]", "conversations"],
  ["a.jsonl", `{"text": "${"x".repeat(100_000)}"}`, "text"],
  ["a.jsonl", "nonsense", "conversations"],
])("%s that begins with %s is guessed", async (name, text, kind) => expect(await guessKind(file(name, text))).toBe(kind));

test("a link to the form sets what the form then reads", () => {
  const [first] = uses({ kind: "text", name: "a.txt", path: "files/text/a.txt" }, []);
  const query = new URL(first?.to ?? "", "http://x").searchParams;
  expect([query.get("stage"), settings(query)]).toEqual(["tokenizer", { data: "files/text/a.txt" }]);
  expect(uses({ kind: "preset", name: "mine.py", path: "" }, ["base"])).toEqual([{ stage: "base", to: "/runs/new?stage=base&config=mine" }]);
  expect(uses({ kind: "preset", name: "mine.json", path: "" }, ["base"])[0]?.to).toBe("/runs/new?stage=base&config=mine");
  expect(uses({ kind: "conversations", name: "c.jsonl", path: "p" }, []).map(({ stage }) => stage)).toEqual(["mid", "sft"]);
  expect(settings(new URLSearchParams("set=a=b=c&set==x&set=d"))).toEqual({ a: "b=c", d: "d" });
});
