/** The lines of a log, grown by chunks that may end anywhere. Keeps the newest `limit` lines. */
export class LogBuffer {
  lines: string[] = [];
  /** Lines dropped at the front: a line's number is its index plus this. */
  dropped = 0;
  /** Grows with every change, so that readers can tell. */
  version = 0;
  private open = false; // the last line has no newline yet
  private skip: boolean;

  /** `midway`: the first chunk starts inside a line, whose rest is left out. */
  constructor(
    midway = false,
    private readonly limit = 100_000,
  ) {
    this.skip = midway;
  }

  append(text: string): void {
    let rest = text;
    if (this.skip) {
      const start = rest.indexOf("\n");
      if (start < 0) return;
      rest = rest.slice(start + 1);
      this.skip = false;
    }
    if (!rest) return;
    const parts = rest.split("\n");
    const ends = parts.at(-1) === "";
    if (ends) parts.pop();
    parts.forEach((part, index) => {
      if (index === 0 && this.open) this.lines[this.lines.length - 1] += part;
      else this.lines.push(part);
    });
    this.open = !ends;
    const excess = this.lines.length - this.limit;
    if (excess > 0) {
      this.lines.splice(0, excess);
      this.dropped += excess;
    }
    this.version += 1;
  }
}
