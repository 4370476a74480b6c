/** Lines of a log, grown at the end and at the front by text whose pieces may end anywhere. */
export class LogBuffer {
  lines: string[] = [];
  /** Number of the first line held; the first that came has number 0, earlier ones count down. */
  base = 0;
  /** Grows with every change, so that readers can tell. */
  version = 0;
  private open = false; // the last line has no newline yet
  private skip: boolean;
  private head = ""; // the end of the line that the first chunk begins in

  /** `midway`: the first chunk starts inside a line, which is shown once its beginning is here. */
  constructor(midway = false) {
    this.skip = midway;
  }

  /** What comes next begins a line. */
  get atLineStart(): boolean {
    return !this.open && !this.skip;
  }

  /** Leave out the first lines; what is put in front later is to end where the first that stays begins. */
  drop(count: number): void {
    this.lines.splice(0, count);
    this.base += count;
    this.head = "";
    this.version += 1;
  }

  append(text: string): void {
    let rest = text;
    if (this.skip) {
      const start = rest.indexOf("\n");
      this.head += start < 0 ? rest : rest.slice(0, start + 1);
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
    this.version += 1;
  }

  /** Text that ends where the first chunk began. `whole`: it begins where the log does. */
  prepend(text: string, whole: boolean): void {
    const all = text + this.head;
    if (this.skip) {
      // no line has begun yet: it is all one text
      [this.head, this.skip] = ["", !whole];
      return this.append(all);
    }
    const start = whole ? 0 : all.indexOf("\n") + 1;
    this.head = all.slice(0, start);
    const parts = all.slice(start).split("\n");
    if (parts.at(-1) === "") parts.pop();
    this.lines = parts.concat(this.lines);
    this.base -= parts.length;
    this.version += 1;
  }
}
