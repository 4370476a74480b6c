/** What a trainer said, in a sentence each. */
import type { TrainerEvent } from "../api/types";
import { t } from "../texts";
import { bytes, number } from "./format";

export type Told = { kind: string; text: string; warns: boolean };

export function tell({ kind, data }: Pick<TrainerEvent, "kind" | "data">): Told {
  const said = (key: string) => (typeof data[key] === "string" ? data[key] : "");
  const told = (text: string, warns = false): Told => ({ kind: t.events.kind[kind] ?? kind, text, warns });
  switch (kind) {
    case "warning":
      return told(said("message"), true);
    case "phase":
      return told(t.events.phase[said("phase")] ?? said("phase"));
    case "checkpoint":
      return told(data["removed"] === true ? t.events.removed(said("path")) : t.events.saved(typeof data["bytes"] === "number" ? bytes(data["bytes"]) : "–", said("path")));
    case "eval":
      return told([said("name"), ...measured(data["values"])].filter(Boolean).join(", "));
    case "end":
      return told(t.events.end[said("status")] ?? said("status"));
    default:
      return told(JSON.stringify(data));
  }
}

function measured(values: unknown): string[] {
  const found = values !== null && typeof values === "object" ? Object.entries(values) : [];
  return found.flatMap(([name, value]) => (typeof value === "number" ? [`${name} ${number(value)}`] : []));
}
