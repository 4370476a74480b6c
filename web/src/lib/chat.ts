/** One chat completion, streamed: yields text as it comes, then how it ended. */
import { Problem, problemFrom } from "../api/problems";
import { send } from "../api/session";
import { events } from "./sse";

export type ChatMessage = { role: "system" | "user" | "assistant"; content: string };

export type ChatRequest = { model: string; messages: ChatMessage[]; temperature: number; max_tokens?: number };

export type Piece = { text: string } | { finish: string } | { usage: { completion_tokens: number } };

type Chunk = {
  choices?: { delta?: { content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens: number } | null;
  error?: { message: string; code?: string | null };
};

export async function* complete(request: ChatRequest, signal: AbortSignal): AsyncGenerator<Piece> {
  const response = await send("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok || !response.body) throw problemFrom(response.status, await response.json().catch(() => null));
  yield* pieces(response.body);
}

/** A stream that breaks off without `[DONE]` is an error, not a short answer. */
export async function* pieces(body: ReadableStream<Uint8Array>): AsyncGenerator<Piece> {
  for await (const data of events(body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) throw new Problem(500, chunk.error.code ?? "error", chunk.error.message);
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (chunk.usage) yield { usage: chunk.usage };
  }
  throw new Problem(500, "cut_off", "The answer broke off: the connection ended early.");
}
