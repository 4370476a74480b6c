/** The text of a form row as a config value, read by the field's JSON schema. */

export type Field = {
  type?: string;
  default?: unknown;
  description?: string;
  minimum?: number;
  maximum?: number;
  enum?: unknown[];
  anyOf?: Field[];
};

export type Row = { key: string; text: string };

/** A field that takes text keeps it as it is; others are read as JSON. What is no JSON stays text: the service says
 *  what is wrong with it better than a form can. */
export function parseValue(text: string, field: Field | undefined): unknown {
  const kinds = field?.anyOf ?? (field ? [field] : []);
  if (kinds.length > 0 && kinds.every((kind) => kind.type === "string" || kind.enum?.every((item) => typeof item === "string"))) return text;
  const written = text.trim();
  try {
    return JSON.parse(written) as unknown;
  } catch {
    if (/^(true|false|none)$/i.test(written)) return { true: true, false: false, none: null }[written.toLowerCase()];
    return text;
  }
}

/** Rows without a name are not there. */
export function toOverrides(rows: readonly Row[], fields: Record<string, Field>): Record<string, unknown> {
  return Object.fromEntries(rows.filter((row) => row.key).map((row) => [row.key, parseValue(row.text, fields[row.key])]));
}

/** `nearest` of a problem as the text of a row. */
export function toText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** The last part of a JSON pointer, unescaped. */
export function pointerTail(pointer: string): string {
  return (pointer.split("/").at(-1) ?? "").replaceAll("~1", "/").replaceAll("~0", "~");
}
