/** One chat completion, streamed: yields text as it comes, then how it ended. */
import { Problem, problemFrom } from "../api/problems";
import { send } from "../api/session";
import { events } from "./sse";

export type ChatMessage = { role: "system" | "user" | "assistant"; content: string };

export type Sampling = {
  temperature: number;
  top_p?: number;
  top_k?: number;
  max_tokens?: number;
  seed?: number;
};

export type ChatRequest = { model: string; messages: ChatMessage[]; logprobs?: boolean; top_logprobs?: number } & Sampling;

/** `bytes` of a token that is half of a character: two such tokens have the same text. */
export type Likely = { text: string; p: number; bytes?: string };

/** A token of the answer, with what stood beside it; probabilities, not their logarithms. */
export type Token = Likely & { others: Likely[] };

export type Piece = { text: string; tokens?: Token[] } | { finish: string } | { usage: { completion_tokens: number } };

type Entry = { token: string; logprob: number; bytes?: number[] | null };
type Chunk = {
  choices?: {
    delta?: { content?: string | null };
    finish_reason?: string | null;
    logprobs?: { content?: (Entry & { top_logprobs?: Entry[] })[] | null } | null;
  }[];
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
    const tokens = choice?.logprobs?.content?.map(token);
    // half of a character is a token too, although there is no text of it yet
    if (choice?.delta?.content || tokens?.length) yield { text: choice?.delta?.content ?? "", ...(tokens && { tokens }) };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (chunk.usage) yield { usage: chunk.usage };
  }
  throw new Problem(500, "cut_off", "The answer broke off: the connection ended early.");
}

function token(entry: Entry & { top_logprobs?: Entry[] }): Token {
  return { ...likely(entry), others: (entry.top_logprobs ?? []).map(likely) };
}

function likely({ token, logprob, bytes }: Entry): Likely {
  const half = bytes && token.includes("\ufffd");
  return { text: token, p: Math.exp(logprob), ...(half && { bytes: bytes.map(written).join("") }) };
}

const written = (byte: number) =>
  byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`;
