import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { LogSearch } from "../lib/search";
import { LogBuffer } from "./logBuffer";
import { MOST_POINTS, SeriesStore } from "./seriesStore";
import { type Frame, LiveConnection, type Status } from "./socket";

/** A socket that the test plays the server of. */
class Line {
  readyState = 1;
  sent: string[] = [];
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  constructor(readonly url: string) {}
  send(text: string) {
    this.sent.push(text);
  }
  close(code = 1000) {
    this.readyState = 3;
    this.onclose?.({ code });
  }
  says(frame: object) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
}

let lines: Line[];
let frames: Frame[];
let statuses: Status[];

function connect(cursors: Record<string, number>): LiveConnection {
  return new LiveConnection({
    path: "/runs/r1/stream",
    cursors,
    origin: "http://host:1",
    onFrame: (frame) => frames.push(frame),
    onStatus: (status) => statuses.push(status),
    open: (url) => {
      const line = new Line(url);
      lines.push(line);
      return line as unknown as WebSocket;
    },
  });
}

beforeEach(() => {
  vi.useFakeTimers();
  [lines, frames, statuses] = [[], [], []];
});
afterEach(() => vi.useRealTimers());

test("the address carries channels and cursors", () => {
  connect({ log: 7, metric: 0 });
  expect(lines[0]?.url).toBe("ws://host:1/runs/r1/stream?channels=log%2Cmetric&after_log=7&after_metric=0");
});

test("after a lost connection it goes on where it was", () => {
  connect({ log: 0, metric: 3 });
  lines[0]?.says({ op: "welcome" });
  lines[0]?.says({ op: "batch", channel: "log", first: 0, last: 512, items: [] });
  lines[0]?.says({ op: "batch", channel: "metric", first: 4, last: 9, items: [] });
  lines[0]?.close(1006);
  expect(statuses.at(-1)).toBe("reconnecting");
  vi.advanceTimersByTime(1000);
  expect(lines[1]?.url).toContain("after_log=512&after_metric=9");
  lines[1]?.says({ op: "welcome" });
  expect(statuses).toEqual(["connecting", "live", "reconnecting", "reconnecting", "live"]);
});

test("it waits longer after every failure, but not for ever", () => {
  connect({});
  const waits: number[] = [];
  for (let i = 0; i < 9; i += 1) {
    const before = lines.length;
    lines.at(-1)?.close(1006);
    let waited = 0;
    while (lines.length === before) {
      vi.advanceTimersByTime(50);
      waited += 50;
    }
    waits.push(waited);
  }
  expect(waits[0]).toBeLessThan(500);
  expect(waits[8]).toBeGreaterThan(6000);
  expect(Math.max(...waits)).toBeLessThanOrEqual(13_050);
});

test("the end of the run and a refusal are no reasons to come back", () => {
  connect({ log: 0 });
  lines[0]?.says({ op: "end", state: "succeeded" });
  expect(statuses.at(-1)).toBe("ended");
  connect({ log: 0 });
  lines[1]?.close(4404);
  vi.advanceTimersByTime(60_000);
  expect(lines).toHaveLength(2);
});

test("a connection that went silent is replaced", () => {
  connect({});
  lines[0]?.says({ op: "welcome" });
  vi.advanceTimersByTime(20_000);
  lines[0]?.says({ op: "pong" });
  vi.advanceTimersByTime(20_000);
  expect(lines).toHaveLength(1);
  vi.advanceTimersByTime(40_000);
  expect(lines[0]?.sent[0]).toBe('{"op":"ping"}');
  expect(lines.length).toBeGreaterThan(1);
});

test("after close nothing comes and nothing is tried", () => {
  const connection = connect({});
  connection.close();
  vi.advanceTimersByTime(60_000);
  expect(lines).toHaveLength(1);
  expect(statuses).toEqual(["connecting"]);
});

test("lines may arrive in pieces", () => {
  const log = new LogBuffer();
  for (const piece of ["fi", "rst\nsec", "ond\n", "\n", "open"]) log.append(piece);
  expect(log.lines).toEqual(["first", "second", "", "open"]);
});

test("a log that starts midway leaves out its broken first line", () => {
  const log = new LogBuffer(true);
  log.append("oken");
  log.append(" line\nwhole\n");
  expect(log.lines).toEqual(["whole"]);
});

test("earlier pieces are put in front, and the line they were cut in is whole again", () => {
  const log = new LogBuffer(true);
  log.append("oken\nlast\n");
  log.prepend("cut\nthird\nbr", false);
  expect([log.base, log.lines]).toEqual([-2, ["third", "broken", "last"]]);
  log.prepend("first\nwas ", true);
  expect([log.base, log.lines]).toEqual([-4, ["first", "was cut", "third", "broken", "last"]]);
});

test("a search reads only what is new, at both ends and in the line that is still written", () => {
  const log = new LogBuffer(true);
  log.append("\nLoss 1\nother\nlo");
  const search = new LogSearch(log, "loss");
  expect(search.look()).toEqual([0]);
  log.append("ss 2\nloss 3\n");
  expect(search.look()).toEqual([0, 2, 3]);
  log.prepend("a loss\nb\n\x1b[1mlo\x1b[0mss", true);
  expect(search.look()).toEqual([-3, -1, 0, 2, 3]);
});

const values = (loss: number | null) => ({ "train/loss": loss });
/** The curve as plain arrays. */
function curve(store: SeriesStore): { x: number[]; y: number[] } {
  const { x, y } = store.series.get("train/loss") ?? { x: [], y: [] };
  return { x: [...x], y: [...y] };
}

test("points are in order of step, one a step, whatever order they come in", () => {
  const store = new SeriesStore([{ key: "train/loss", x: [0, 1], y: [9, 8] }]);
  store.add({ step: 3, values: values(6) });
  store.add({ step: 2, values: values(7) });
  store.add({ step: 1, values: values(8.5) });
  expect(curve(store)).toEqual({ x: [0, 1, 2, 3], y: [9, 8.5, 7, 6] });
});

test("a rewind drops what came after the step it resumes from", () => {
  const store = new SeriesStore([{ key: "train/loss", x: [0, 10, 20, 30], y: [9, 8, 7, 6] }]);
  store.rewind(10);
  store.add({ step: 11, values: values(7.9) });
  expect(curve(store).x).toEqual([0, 10, 11]);
});

test("a series that is watched for days stays bounded, with its lowest and highest value", () => {
  const store = new SeriesStore();
  const peaks = new Map([[777, 99], [5000, -7]]);
  for (let step = 0; step < 5 * MOST_POINTS; step += 1) store.add({ step, values: values(peaks.get(step) ?? 5) });
  const { x, y } = curve(store);
  expect([x.length <= MOST_POINTS, x.length >= MOST_POINTS / 2, y.length === x.length]).toEqual([true, true, true]);
  expect([x[0], x.at(-1), y[x.indexOf(777)], y[x.indexOf(5000)]]).toEqual([0, 5 * MOST_POINTS - 1, 99, -7]);
  expect(x).toEqual([...x].sort((a, b) => a - b));
});

test("what is not a number is a gap, and never the lowest or the highest of its neighbours", () => {
  const store = new SeriesStore([{ key: "train/loss", x: [0, 1], y: [9, null] }]);
  store.add({ step: 2, values: values(null) });
  store.add({ step: 3, values: values(6) });
  expect(curve(store).y).toEqual([9, NaN, NaN, 6]);
  for (let step = 4; step <= MOST_POINTS; step += 1) store.add({ step, values: values(step % 2 ? null : step) });
  const { x, y } = curve(store);
  expect(x.length).toBeLessThan(MOST_POINTS);
  expect(y.slice(0, 2)).toEqual([9, 6]);
  expect(y.slice(1, -1).some(Number.isNaN)).toBe(false);
});

test("a point more takes no more memory, and a curve that is drawn stays as it was while its series is halved or cut", () => {
  const store = new SeriesStore([{ key: "train/loss", x: [0, 1], y: [9, 8] }]);
  const room = () => (store.series.get("train/loss") as { x: Float64Array }).x.buffer;
  const first = room();
  for (let step = 2; step < MOST_POINTS; step += 1) store.add({ step, values: values(5) });
  expect([room() === first, first.byteLength]).toEqual([true, 8 * MOST_POINTS]);
  const drawn = store.series.get("train/loss") as { x: Float64Array; y: Float64Array };
  const before = [[...drawn.x], [...drawn.y]];
  store.add({ step: MOST_POINTS, values: values(4) });
  store.rewind(7);
  store.add({ step: 8, values: values(3) });
  expect([[...drawn.x], [...drawn.y]]).toEqual(before);
  expect(room().byteLength).toBe(8 * MOST_POINTS);
});

test("more points than are kept are halved at once", () => {
  const x = Array.from({ length: 5 * MOST_POINTS }, (_, step) => step);
  const store = new SeriesStore([{ key: "train/loss", x, y: x.map((step) => (step === 777 ? 1e9 : step)) }]);
  expect(curve(store).x.length).toBeLessThanOrEqual(MOST_POINTS);
  expect(Math.max(...curve(store).y)).toBe(1e9);
});
