/** What the service says when it refuses: RFC 9457 documents, and OpenAI errors under /v1. */

export type ProblemItem = { pointer: string; message: string; nearest?: unknown };

export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly errors: ProblemItem[] = [],
  ) {
    super(detail);
  }
}

/** Any error body as a Problem. */
export function problemFrom(status: number, body: unknown): Problem {
  const document = (body ?? {}) as Record<string, unknown>;
  const openai = document["error"] as { message?: string; code?: string | null } | undefined;
  if (openai?.message) return new Problem(status, openai.code ?? "error", openai.message);
  const detail = typeof document["detail"] === "string" ? document["detail"] : `The service answered ${status}.`;
  const errors = Array.isArray(document["errors"]) ? (document["errors"] as ProblemItem[]) : [];
  return new Problem(status, String(document["code"] ?? "error"), detail, errors);
}

/** Problems of one form field: those at its pointer or below it. */
export function at(problem: Problem | null, pointer: string): ProblemItem[] {
  return (problem?.errors ?? []).filter((item) => item.pointer === pointer || item.pointer.startsWith(`${pointer}/`));
}
