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

/** Fields that were left empty are not there. */
export function toOverrides(values: Readonly<Record<string, string>>, fields: Record<string, Field>): Record<string, unknown> {
  const written = Object.entries(values).filter(([, text]) => text.trim() !== "");
  return Object.fromEntries(written.map(([key, text]) => [key, parseValue(text, fields[key])]));
}

/** Names belong to one run. */
const OWN = ["run", "model_tag", "resume_from"];

/** What `config` says otherwise than `base`, as texts of a form. */
export function changed(config: Readonly<Record<string, unknown>>, base: Readonly<Record<string, unknown>>): Record<string, string> {
  const differs = Object.entries(config).filter(([key, value]) => !OWN.includes(key) && JSON.stringify(value) !== JSON.stringify(base[key]));
  return Object.fromEntries(differs.map(([key, value]) => [key, toText(value)]));
}

/** `nearest` of a problem as the text of a row. */
export function toText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
