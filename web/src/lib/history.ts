/** Conversations, kept in this browser and nowhere else: the newest first, the oldest forgotten. */
import type { Token } from "./chat";

export type Answer = {
  model: string;
  content: string;
  /** Date.now() of the question. */
  askedAt: number;
  /** While it is being written. */
  open?: boolean;
  finish?: string;
  /** What went wrong, in words. */
  error?: string;
  tokens?: number;
  tokensPerSecond?: number;
  /** Not kept: large, and only of use while one looks. */
  probabilities?: Token[];
};

/** A question with an answer from each model that was asked. */
export type Exchange = { id: number; question: string; answers: Answer[] };
export type Conversation = { id: string; at: number; exchanges: Exchange[] };

const KEY = "nanochat.conversations";
const MOST = 50;

/** Other people's rubbish under our key, or no storage at all: no history. */
export function readHistory(storage: Pick<Storage, "getItem"> | null = store()): Conversation[] {
  try {
    const found: unknown = JSON.parse(storage?.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? (found as Conversation[]).filter((one) => Array.isArray(one?.exchanges)) : [];
  } catch {
    return [];
  }
}

/** A full store loses its oldest conversations. */
export function writeHistory(conversations: readonly Conversation[], storage: Pick<Storage, "setItem"> | null = store()): void {
  const kept = conversations.slice(0, MOST).map((one) => ({ ...one, exchanges: one.exchanges.map(lean) }));
  while (kept.length > 0)
    try {
      storage?.setItem(KEY, JSON.stringify(kept));
      return;
    } catch {
      kept.pop();
    }
  try {
    storage?.setItem(KEY, "[]");
  } catch {
    // there is no storage: nothing is kept
  }
}

/** As it will be found again: no answer is still being written then. */
function lean(exchange: Exchange): Exchange {
  return { ...exchange, answers: exchange.answers.map(({ probabilities: _, open, ...kept }) => (open ? { ...kept, finish: "stopped" } : kept)) };
}

export const titleOf = (conversation: Conversation): string => conversation.exchanges[0]?.question.slice(0, 80) ?? "";

function store(): Storage | null {
  try {
    return localStorage;
  } catch {
    return null;
  }
}
