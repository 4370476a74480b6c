/** The conversation on the page: what was said, the answer that is being written, how to stop it. */
import { useRef, useState } from "react";
import { type ChatMessage, complete } from "../../lib/chat";

export type Turn = {
  id: number;
  role: "user" | "assistant";
  content: string;
  /** Date.now() of the question. */
  askedAt: number;
  /** While the answer is being written. */
  open?: boolean;
  finish?: string;
  error?: unknown;
  tokens?: number;
  tokensPerSecond?: number;
};

export type Settings = { model: string; system: string; temperature: number; /** null: as long as the context allows */ maxTokens: number | null };

/** A first token that takes longer than this waited for its model. */
const LOADING_MS = 1500;

export function useConversation() {
  const [turns, setTurns] = useState<Turn[]>([]);
  const abort = useRef<AbortController | null>(null);
  const nextId = useRef(0);
  const busy = turns.at(-1)?.open === true;

  const send = async (text: string, settings: Settings) => {
    const question: Turn = { id: nextId.current++, role: "user", content: text, askedAt: Date.now() };
    const answer: Turn = { id: nextId.current++, role: "assistant", content: "", askedAt: Date.now(), open: true };
    const said = turns.filter((turn) => turn.content && !turn.error);
    setTurns([...turns.filter((turn) => !turn.error), question, answer]);
    const update = (change: Partial<Turn>) => {
      Object.assign(answer, change);
      setTurns((now) => now.map((turn) => (turn.id === answer.id ? { ...answer } : turn)));
    };

    const controller = new AbortController();
    abort.current = controller;
    const messages: ChatMessage[] = [...said, question].map(({ role, content }) => ({ role, content }));
    if (settings.system.trim()) messages.unshift({ role: "system", content: settings.system.trim() });
    let firstAt = 0;
    let count = 0;
    const sentAt = performance.now();
    // the whole wait counts, because a fast answer arrives in one piece; but not the loading of a model
    const since = () => (firstAt - sentAt > LOADING_MS ? firstAt : sentAt);
    const rate = (tokens: number) => (tokens * 1000) / Math.max(50, performance.now() - since());
    try {
      const { model, temperature, maxTokens } = settings;
      for await (const piece of complete({ model, messages, temperature, ...(maxTokens && { max_tokens: maxTokens }) }, controller.signal)) {
        if ("text" in piece) {
          firstAt ||= performance.now();
          count += 1;
          update({ content: answer.content + piece.text, tokens: count, tokensPerSecond: rate(count) });
        } else if ("finish" in piece) update({ finish: piece.finish });
        else update({ tokens: piece.usage.completion_tokens, tokensPerSecond: rate(piece.usage.completion_tokens) });
      }
      update({ open: false });
    } catch (error) {
      update(controller.signal.aborted ? { open: false, finish: "stopped" } : { open: false, error });
    }
  };

  return {
    turns,
    busy,
    send,
    stop: () => abort.current?.abort(),
    clear: () => {
      abort.current?.abort();
      setTurns([]);
    },
  };
}
