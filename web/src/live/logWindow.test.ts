import { beforeEach, expect, test, vi } from "vitest";
import { LIMITS, LogWindow } from "./logWindow";

/** A service with a log in bytes; it answers as ours does: characters that are cut at the end wait, others are �. */
class Service {
  asked: [number, number][] = [];
  broken = false;
  constructor(public bytes: Uint8Array) {}
  write(text: string) {
    const [before, more] = [this.bytes, new TextEncoder().encode(text)];
    this.bytes = new Uint8Array(before.length + more.length);
    this.bytes.set(before);
    this.bytes.set(more, before.length);
  }
  read = async (after: number, end: number) => {
    this.asked.push([after, end]);
    if (this.broken) throw new TypeError("Failed to fetch");
    const decoder = new TextDecoder();
    const text = decoder.decode(this.bytes.slice(after, end), { stream: true });
    let last = end;
    // what the decoder holds back
    while (last > after && (this.bytes[last] ?? 0) >> 6 === 2) last -= 1;
    return { text, last };
  };
}

const LINES = Array.from({ length: 2000 }, (_, n) => `line ${n} ${"│".repeat(n % 7)}${"x".repeat((n * 37) % 90)}`);
const TEXT = new TextEncoder().encode(LINES.join("\n") + "\n");
const STARTS = [0];
for (const [at, byte] of TEXT.entries()) if (byte === 10) STARTS.push(at + 1);
const PIECE = 4096;

let service: Service;
let changed: ReturnType<typeof vi.fn>;
/** At the end, as a page begins. */
function make(limits: Partial<typeof LIMITS> = {}): LogWindow {
  const from = TEXT.length - PIECE;
  const log = new LogWindow(service.read, changed as unknown as () => void, 0, from, { ...LIMITS, piece: PIECE, most: 10_000, ...limits });
  const text = new TextDecoder().decode(TEXT.slice(from));
  log.receive(from, TEXT.length, text);
  return log;
}
/** What is held is a part of the log, in order and without a hole; the rest of its last line may be missing. */
function held(log: LogWindow): [first: number, last: number] {
  const first = LINES.indexOf(log.lines[0] as string);
  const expected = LINES.slice(first, first + log.lines.length);
  if (log.to < log.end) expected.push(expected.pop()?.slice(0, log.lines.at(-1)?.length) ?? "");
  expect(log.lines).toEqual(expected);
  return [first, first + log.lines.length - 1];
}

beforeEach(() => {
  service = new Service(TEXT);
  changed = vi.fn();
});

test("it begins with the end, goes back piece by piece, and knows when it is whole", async () => {
  const log = make();
  const [first, last] = held(log);
  expect([last, log.whole, log.to]).toEqual([LINES.length - 1, false, log.end]);
  expect(await log.earlier()).toBe(true);
  expect(held(log)[0]).toBeLessThan(first);
  while (await log.earlier()) held(log);
  expect([log.whole, log.lines.length, log.base]).toEqual([true, LINES.length, -held(log)[1] + last - first]);
});

test("opened at a line, that line is number 0; from there it goes both ways", async () => {
  const log = make();
  for (const number of [0, 3, 1000, 1997]) {
    await log.open(STARTS[number] as number, true);
    expect(log.lines[-log.base]).toBe(LINES[number]);
    held(log);
  }
  await log.open(STARTS[1000] as number, true);
  const [first, last] = held(log);
  await log.later();
  await log.earlier();
  const [now, then] = held(log);
  expect([now < first, then > last, log.lines[-log.base]]).toEqual([true, true, LINES[1000]]);
});

test("opened anywhere, in a line or a character, its lines are whole", async () => {
  const log = make();
  for (let byte = 30_000; byte < 30_200; byte += 1) {
    await log.open(byte, false);
    const [first] = held(log);
    const next = STARTS.findIndex((start) => start > byte);
    expect(first - log.base - next).toBeLessThanOrEqual(0);
    expect(first - log.base - next).toBeGreaterThanOrEqual(-1);
    await log.earlier();
    await log.later();
    held(log);
  }
});

test("what is written while its end is not held is fetched on the way back", async () => {
  const log = make();
  await log.open(20_000, false);
  service.write("fresh one\nfresh two\n");
  log.receive(TEXT.length, service.bytes.length, "fresh one\nfresh two\n");
  expect(log.lines).not.toContain("fresh one");
  while (await log.toEnd()) expect(service.asked.length).toBeLessThan(20);
  expect([log.to, log.lines.at(-1)]).toEqual([log.end, "fresh two"]);
  log.receive(log.end, log.end + 6, "third\n");
  expect(log.lines.slice(-3)).toEqual(["fresh one", "fresh two", "third"]);
});

test("who follows for days is opened anew at the end", async () => {
  const log = make({ most: 100 });
  const before = log.opened;
  for (let n = 0; n < 100; n += 1) {
    service.write(`n ${n}\n`);
    log.receive(log.end, service.bytes.length, `n ${n}\n`);
    await log.toEnd();
    expect(log.lines.at(-1)).toBe(`n ${n}`);
  }
  expect(log.opened).toBeGreaterThan(before);
});

/** So many more lines, in pieces of one to three. */
function write(log: LogWindow, lines: number) {
  for (let n = 0; n < lines; ) {
    const text = Array.from({ length: Math.min(lines - n, 1 + (n % 3)) }, () => `${"é".repeat(n % 5)} ${(n += 1)}\n`).join("");
    service.write(text);
    log.receive(log.end, service.bytes.length, text);
  }
}

test("who only looks at the end holds a bounded part of it, without a hole, and what was dropped comes back", async () => {
  const log = make({ followed: 300, kept: 200 });
  const lengths = [];
  for (let round = 0; round < 40; round += 1) {
    write(log, 100);
    lengths.push(log.lines.length);
  }
  expect(Math.max(...lengths)).toBeLessThanOrEqual(300);
  expect(Math.min(...lengths.slice(3))).toBeGreaterThanOrEqual(200);
  const all = () => new TextDecoder().decode(service.bytes).split("\n").slice(0, -1);
  expect(log.lines).toEqual(all().slice(-log.lines.length));
  const [base, held] = [log.base, log.lines.length];
  log.keep = true;
  expect(await log.earlier()).toBe(true);
  expect(log.lines).toEqual(all().slice(-log.lines.length));
  expect([log.lines.length > held, base - log.base]).toEqual([true, log.lines.length - held]);
  while (await log.earlier());
  expect([log.whole, log.lines]).toEqual([true, all()]);
});

test("nothing is dropped while somebody reads what is before the end", () => {
  const log = make({ followed: 300, kept: 200 });
  log.keep = true;
  const held = log.lines.length;
  write(log, 1000);
  expect(log.lines).toHaveLength(held + 1000);
  log.keep = false;
  write(log, 100);
  expect(log.lines.length).toBeLessThanOrEqual(300);
});

test("lines are dropped where pieces begin in the middle of one, and what was dropped comes back", async () => {
  const log = make({ followed: 300, kept: 200 });
  const say = (text: string) => {
    service.write(text);
    log.receive(log.end, service.bytes.length, text);
  };
  say("x");
  for (let n = 0; n < 1000; n += 1) {
    say(`é ${n}\nx`);
    expect(log.lines.length).toBeLessThanOrEqual(300);
  }
  const all = new TextDecoder().decode(service.bytes).split("\n");
  expect(log.lines).toEqual(all.slice(-log.lines.length));
  log.keep = true;
  while (await log.earlier());
  expect(log.lines).toEqual(all);
});

test("a log whose pieces never begin with a line or what can be read is kept until it is opened anew", () => {
  const log = make({ followed: 300, kept: 200 });
  log.receive(log.end, log.end + 1, "x");
  for (let n = 0; n < 1000; n += 1) log.receive(log.end, log.end + 3, "\ufffd\nx");
  expect(log.lines.length).toBeGreaterThan(1000);
});

test("one thing is fetched at a time, and a failure changes nothing and is not tried at once", async () => {
  vi.useFakeTimers();
  const log = make();
  const [first] = held(log);
  service.broken = true;
  const failed = log.earlier();
  expect(log.busy).toBe(true);
  expect(await log.later()).toBe(false);
  await vi.advanceTimersByTimeAsync(500);
  expect([log.busy, changed.mock.calls.length]).toEqual([true, 0]);
  await vi.advanceTimersByTimeAsync(600);
  expect(await failed).toBe(false);
  expect([log.busy, changed.mock.calls.length, held(log)[0]]).toEqual([false, 1, first]);
  service.broken = false;
  expect(await log.earlier()).toBe(true);
  vi.useRealTimers();
});
