/** Where a word stands in a growing log: only lines that are new since the last look are read. */
import { plain } from "./ansi";

/** The line has the word, written small; colours and what was written over do not count. */
export function has(line: string, word: string): boolean {
  // nearly no line has escapes, and taking them out is what takes time
  const text = line.includes("\x1b") || line.includes("\r") ? plain(line) : line;
  return text.toLowerCase().includes(word);
}

/** Numbered lines, of which more come at both ends. */
export type Lines = { readonly lines: readonly string[]; readonly base: number };

export class LogSearch {
  /** Numbers of the lines that match, rising. */
  found: number[] = [];
  private from = 0;
  private to = 0;

  constructor(
    readonly log: Lines,
    readonly word: string,
  ) {
    this.from = this.to = log.base;
  }

  /** Look at what is new at both ends. The last line may have grown, so it is read again. */
  look(): number[] {
    const { base, lines } = this.log;
    const again = Math.max(base, this.from, this.to - 1);
    const known = this.found.filter((number) => number >= base && number < again);
    this.found = [...this.numbers(base, this.from), ...known, ...this.numbers(again, base + lines.length)];
    this.from = base;
    this.to = base + lines.length;
    return this.found;
  }

  private numbers(from: number, to: number): number[] {
    const { base, lines } = this.log;
    const found: number[] = [];
    for (let number = from; number < to; number += 1) if (has(lines[number - base] as string, this.word)) found.push(number);
    return found;
  }
}
