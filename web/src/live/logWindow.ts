/** The part of a log that is held: some bytes in a row, as lines. At the log's end it grows by what is written, and
 *  loses its oldest lines while nobody reads them; elsewhere it grows by what is fetched when a reader comes near one
 *  of its ends, or is opened anew where the reader went. */
import { LogBuffer } from "./logBuffer";

/** The text of the bytes from `after` to `end`, and where it stopped: before a character that `end` would cut. */
export type ReadLog = (after: number, end: number) => Promise<{ text: string; last: number }>;

/** Of the log's end, what a page begins with: as a rule more lines than are held while only the end is looked at. */
export const FIRST_BYTES = 128 * 1024;
export const LIMITS = {
  /** Of what is fetched at once, in bytes. */
  piece: 512 * 1024,
  /** Lines held while somebody reads some of them: from here on the log is opened anew at its end. */
  most: 200_000,
  /** Lines held while only the end is looked at, and how many of them stay when there are more. */
  followed: 1_000,
  kept: 800,
};
/** Every so many lines it is noted at which byte one begins. */
const MARK_LINES = 50;
const RETRY_MS = 1000;
const encoder = new TextEncoder();

export class LogWindow {
  /** Bytes held; `to` is `end` while the log's end is among them. */
  from: number;
  to: number;
  end: number;
  /** How often it was opened: lines are numbered anew each time. */
  opened = 0;
  /** Somebody looks at more than the end: no line is dropped. */
  keep = false;
  private buffer: LogBuffer;
  /** Lines of which it is known where they begin. */
  private marks: { number: number; byte: number }[] = [];
  private asked: Promise<boolean> | null = null;

  /** Begins at `from`, empty; `start`: the first byte that the service has. */
  constructor(
    private readonly read: ReadLog,
    private readonly changed: () => void,
    readonly start = 0,
    from = start,
    private readonly limits = LIMITS,
  ) {
    this.from = this.to = this.end = from;
    this.buffer = new LogBuffer(from > start);
  }

  get lines(): readonly string[] {
    return this.buffer.lines;
  }
  /** Number of the first line held. */
  get base(): number {
    return this.buffer.base;
  }
  get version(): number {
    return this.buffer.version;
  }
  /** Nothing of the log is missing. */
  get whole(): boolean {
    return this.from === this.start && this.to === this.end;
  }

  /** What was written just now: bytes `first` to `last`. */
  receive(first: number, last: number, text: string): void {
    const here = this.to === this.end && first === this.to && this.lines.length < this.limits.most;
    if (here) {
      const cut = this.from === this.to ? this.cutOff(first, text) : 0;
      this.from += cut;
      const rest = text.slice(cut);
      const head = this.buffer.atLineStart ? "" : rest.slice(0, rest.indexOf("\n") + 1);
      this.buffer.append(head);
      // how many bytes an unreadable character stands for is not known
      if (!head.includes("\ufffd")) this.mark(first + cut + encoder.encode(head).length);
      this.buffer.append(rest.slice(head.length));
      this.to = last;
      if (!this.keep && this.lines.length > this.limits.followed) this.forget();
    }
    this.end = Math.max(this.end, last);
  }

  private mark(byte: number): void {
    const number = this.base + this.lines.length;
    const due = number - (this.marks.at(-1)?.number ?? -Infinity) >= MARK_LINES;
    if (due && this.buffer.atLineStart) this.marks.push({ number, byte });
  }

  /** Drop the oldest lines: all but `kept`, or a few more. They are fetched again for whoever goes back to them. */
  private forget(): void {
    const index = this.marks.findLastIndex(({ number }) => number <= this.base + this.lines.length - this.limits.kept);
    const first = this.marks[index];
    if (!first || first.number <= this.base) return;
    this.buffer.drop(first.number - this.base);
    this.from = first.byte;
    this.marks.splice(0, index);
  }

  /** The service has nothing before byte `to`, where it goes on. */
  skip(to: number): void {
    if (this.to === this.end) this.to = to;
    this.end = Math.max(this.end, to);
  }

  /** The lines before the first one. False: not now, something is being fetched, or there are none. */
  earlier(): Promise<boolean> {
    const from = Math.max(this.start, this.from - this.limits.piece);
    if (from === this.from) return Promise.resolve(false);
    return this.fetch(async () => {
      const { text } = await this.read(from, this.from);
      const cut = this.cutOff(from, text);
      this.buffer.prepend(text.slice(cut), from === this.start);
      this.from = from + cut;
    });
  }

  /** The lines after the last one. */
  later(): Promise<boolean> {
    const to = Math.min(this.end, this.to + this.limits.piece);
    if (to === this.to) return Promise.resolve(false);
    return this.fetch(async () => {
      const { text, last } = await this.read(this.to, to);
      this.buffer.append(text);
      this.to = last;
    });
  }

  /** Hold the surroundings of a byte instead. Line 0 is then the one that begins there; where none does (`!exact`),
   *  the next. */
  async open(byte: number, exact: boolean): Promise<boolean> {
    while (this.asked) await this.asked;
    const at = Math.min(this.end, Math.max(this.start, byte));
    const from = Math.max(this.start, at - this.limits.piece / 2);
    const to = Math.min(this.end, at + this.limits.piece / 2);
    return this.fetch(async () => {
      const before = await this.read(from, at);
      const after = await this.read(before.last, to);
      const cut = this.cutOff(from, before.text);
      const buffer = new LogBuffer(!exact && at > this.start);
      buffer.append(after.text);
      buffer.prepend(before.text.slice(cut), from === this.start);
      buffer.version += this.version;
      this.buffer = buffer;
      this.marks = [];
      this.opened += 1;
      [this.from, this.to] = [from + cut, after.last];
    });
  }

  /** Go where the log is written. */
  toEnd(): Promise<boolean> {
    if (this.to === this.end) return Promise.resolve(false);
    return this.end - this.to <= this.limits.piece && this.lines.length < this.limits.most ? this.later() : this.open(this.end, false);
  }

  /** How many characters stand for bytes of one that `from` cuts: they belong to what is before. */
  private cutOff(from: number, text: string): number {
    return from === this.start ? 0 : (/^\ufffd{0,3}/.exec(text)?.[0].length ?? 0);
  }

  get busy(): boolean {
    return this.asked !== null;
  }

  /** One thing at a time; what fails leaves everything as it was, and whoever still wants it asks again. */
  private fetch(work: () => Promise<void>): Promise<boolean> {
    if (this.asked) return Promise.resolve(false);
    const done = work().then(
      () => true,
      () => new Promise<boolean>((resolve) => setTimeout(() => resolve(false), RETRY_MS)),
    );
    this.asked = done.finally(() => {
      this.asked = null;
      this.changed();
    });
    return this.asked;
  }
}
