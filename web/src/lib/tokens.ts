/** Tokens as people read them. */

type Counted = { counts: boolean };

/** Neighbours that all count, or all do not, together. */
export function runsOfTokens<T extends Counted>(tokens: readonly T[]): { counts: boolean; tokens: T[] }[] {
  const found: { counts: boolean; tokens: T[] }[] = [];
  for (const token of tokens) {
    const last = found.at(-1);
    if (last?.counts === token.counts) last.tokens.push(token);
    else found.push({ counts: token.counts, tokens: [token] });
  }
  return found;
}

/** What has no shape gets one: ends of lines (which stay), tabs, control characters. */
export function visible(text: string): string {
  return text
    .replace(/\r?\n/g, (end) => `${end.length > 1 ? "␍" : ""}↵\n`)
    .replace(/\t/g, "⇥\t")
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (character) => String.fromCodePoint(0x2400 + character.charCodeAt(0)))
    .replace(/\u007f/g, "␡");
}
