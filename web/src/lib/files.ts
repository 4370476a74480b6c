/** Names and kinds of files to upload, and what a run is told of them. */

export type Kind = "conversations" | "text" | "preset";
export const KINDS: readonly Kind[] = ["conversations", "text", "preset"];

const LONGEST = 64;

/** The usable name nearest to a file's own; empty when nothing of it is usable. The service has the same rule. */
export function plainName(text: string): string {
  const name = text.split(/[/\\]/).at(-1)?.normalize("NFKD").toLowerCase().trim().replace(/\s+/g, "-").replace(/[^a-z0-9._-]/g, "") ?? "";
  const dot = name.lastIndexOf(".");
  const [stem, ending] = [name.slice(0, Math.max(0, dot)).replace(/^[._-]+/, ""), name.slice(dot + 1)];
  return stem ? `${stem.slice(0, LONGEST - 1 - ending.length)}.${ending}` : "";
}

/** What a file is by its ending; JSON lines by the first of them. */
export async function guessKind(file: Blob & { name: string }): Promise<Kind> {
  const name = file.name.toLowerCase();
  if (/\.(py|json)$/.test(name)) return "preset";
  if (!name.endsWith(".jsonl")) return "text";
  const first = (await file.slice(0, 1 << 16).text()).split("\n").find((line) => line.trim()) ?? "";
  try {
    const found: unknown = JSON.parse(first);
    const fields = found && typeof found === "object" ? found : {};
    return "text" in fields && !("messages" in fields) ? "text" : "conversations";
  } catch {
    // cut off, or broken: the beginning says which it means to be
    return /^\s*\{\s*"text"\s*:/.test(first) ? "text" : "conversations";
  }
}

/** What a run is told of an uploaded preset. */
export const presetName = (file: string): string => file.replace(/\.(py|json)$/, "");

/** Stages that take a file, and the new-run form with it filled in. `presetStages`: those that know the preset. */
export function uses(file: { kind: Kind; name: string; path: string }, presetStages: readonly string[]): { stage: string; to: string }[] {
  const form = (stage: string, more: Record<string, string>) => ({ stage, to: `/runs/new?${new URLSearchParams({ stage, ...more })}` });
  if (file.kind === "preset") return presetStages.map((stage) => form(stage, { config: presetName(file.name) }));
  const [stages, field] = file.kind === "text" ? [["tokenizer", "base"], "data"] : [["mid", "sft"], "tasks"];
  return (stages as string[]).map((stage) => form(stage, { set: `${field}=${file.path}` }));
}

/** `set=key=value` of a link to the new-run form. */
export function settings(query: URLSearchParams): Record<string, string> {
  const pairs = query.getAll("set").map((text) => [text.split("=", 1)[0] as string, text.slice(text.indexOf("=") + 1)] as const);
  return Object.fromEntries(pairs.filter(([key]) => key));
}
