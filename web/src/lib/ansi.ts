/** Terminal colours to spans. Only text and class names come out: nothing in a log can become markup.
 *  Not covered: cursor movement other than a carriage return; such sequences are dropped. */

export type Span = { text: string; style: string };

// CSI … final byte | OSC … BEL or ST | two-byte escapes | other control characters, tab excepted
const ESCAPES =
  // eslint-disable-next-line no-control-regex
  /\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[PX^_][^\x1b]*(?:\x1b\\|$)|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]/g;

const BASE = ["soft", "bad", "good", "warn", "blue", "violet", "cyan", "plain"];

/** What a progress bar leaves on the line: the text after the last carriage return. */
export function overwrite(line: string): string {
  const whole = line.endsWith("\r") ? line.slice(0, -1) : line;
  return whole.slice(whole.lastIndexOf("\r") + 1);
}

export function spans(line: string): Span[] {
  const found: Span[] = [];
  let colour = "";
  let bold = false;
  let dim = false;
  let at = 0;
  const push = (text: string) => {
    if (!text) return;
    const style = [colour && `ansi-${colour}`, bold && "font-semibold", dim && "opacity-70"].filter(Boolean).join(" ");
    const last = found.at(-1);
    if (last && last.style === style) last.text += text;
    else found.push({ text, style });
  };
  const visible = overwrite(line);
  for (const match of visible.matchAll(ESCAPES)) {
    push(visible.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[2] !== "m") continue;
    const codes = (match[1] ?? "").split(/[;:]/).map(Number);
    for (let i = 0; i < codes.length; i += 1) {
      const code = codes[i] ?? 0;
      if (code === 0) [colour, bold, dim] = ["", false, false];
      else if (code === 1) bold = true;
      else if (code === 2) dim = true;
      else if (code === 22) [bold, dim] = [false, false];
      else if (code >= 30 && code <= 37) colour = BASE[code - 30] ?? "";
      else if (code >= 90 && code <= 97) colour = BASE[code - 90] ?? "";
      else if (code === 39) colour = "";
      else if (code === 38 || code === 48) {
        const indexed = codes[i + 1] === 5;
        const shade = codes[i + 2] ?? 0;
        if (indexed && code === 38) colour = shade < 16 ? (BASE[shade % 8] ?? "") : "";
        i += indexed ? 2 : 4;
      }
    }
  }
  push(visible.slice(at));
  return found;
}

/** The line as text alone, for searching and copying. */
export function plain(line: string): string {
  return overwrite(line).replace(ESCAPES, "");
}
