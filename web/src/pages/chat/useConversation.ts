/** The conversation on the page: questions, the answers that are being written, how to stop them; kept between visits. */
import { useCallback, useEffect, useRef, useState } from "react";
import { type ChatMessage, complete, type Sampling } from "../../lib/chat";
import { type Answer, type Conversation, type Exchange, readHistory, writeHistory } from "../../lib/history";

export type Settings = { system: string; sampling: Sampling; probabilities: boolean };

/** A first token that takes longer than this waited for its model. */
const LOADING_MS = 1500;
/** Alternatives beside each token. */
const ALTERNATIVES = 5;
const KEEP_MS = 400;

export function useConversation() {
  const [history, setHistory] = useState<Conversation[]>(() => readHistory());
  const [id, setId] = useState(fresh);
  const [exchanges, setExchanges] = useState<Exchange[]>([]);
  const abort = useRef<AbortController | null>(null);
  const busy = exchanges.at(-1)?.answers.some(({ open }) => open) === true;

  useEffect(() => () => abort.current?.abort(), []);
  useEffect(() => {
    if (exchanges.length === 0) return;
    // not for every token
    const timer = setTimeout(() => {
      const others = readHistory().filter((one) => one.id !== id);
      const next = [{ id, at: Date.now(), exchanges }, ...others];
      writeHistory(next);
      setHistory(next);
    }, KEEP_MS);
    return () => clearTimeout(timer);
  }, [exchanges, id]);

  /** Ask after the first `keep` exchanges; those after them are forgotten. */
  const send = async (question: string, models: readonly string[], settings: Settings, keep = exchanges.length) => {
    abort.current?.abort();
    const controller = new AbortController();
    abort.current = controller;
    const before = exchanges.slice(0, keep);
    const exchange: Exchange = {
      id: Date.now(),
      question,
      answers: models.map((model) => ({ model, content: "", askedAt: Date.now(), open: true })),
    };
    setExchanges([...before, exchange]);
    const update = (place: number, change: Partial<Answer>) => {
      const replace = (answer: Answer, i: number) => (i === place ? { ...answer, ...change } : answer);
      setExchanges((now) => now.map((one) => (one.id === exchange.id ? { ...one, answers: one.answers.map(replace) } : one)));
    };
    await Promise.all(models.map((model, place) => answer(model, messagesOf(before, question, place, settings.system), settings, controller.signal, (change) => update(place, change))));
  };

  const show = useCallback((conversation: Conversation | null) => {
    abort.current?.abort();
    setId(conversation?.id ?? fresh());
    setExchanges(conversation?.exchanges ?? []);
  }, []);

  const forget = (gone: string) => {
    const next = readHistory().filter((one) => one.id !== gone);
    writeHistory(next);
    setHistory(next);
    if (gone === id) show(null);
  };

  return { id, exchanges, history, busy, send, show, forget, stop: () => abort.current?.abort() };
}

const fresh = () => `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;

/** What one model is told: its own answers, or those of the only model there was. */
function messagesOf(before: readonly Exchange[], question: string, place: number, system: string): ChatMessage[] {
  const said = before.flatMap(({ question: asked, answers }): ChatMessage[] => {
    const given = (answers[place] ?? answers[0])?.content;
    return given ? [{ role: "user", content: asked }, { role: "assistant", content: given }] : [];
  });
  const first: ChatMessage[] = system.trim() ? [{ role: "system", content: system.trim() }] : [];
  return [...first, ...said, { role: "user", content: question }];
}

async function answer(model: string, messages: ChatMessage[], settings: Settings, signal: AbortSignal, update: (change: Partial<Answer>) => void): Promise<void> {
  const state: Partial<Answer> & { content: string } = { content: "", probabilities: [] };
  let firstAt = 0;
  let frame = 0;
  const sentAt = performance.now();
  // the whole wait counts, because a fast answer arrives in one piece; but not the loading of a model
  const since = () => (firstAt - sentAt > LOADING_MS ? firstAt : sentAt);
  const count = (tokens: number) => Object.assign(state, { tokens, tokensPerSecond: (tokens * 1000) / Math.max(50, performance.now() - since()) });
  // many tokens may come between two pictures
  const draw = () => (frame ||= requestAnimationFrame(() => ((frame = 0), update({ ...state }))));
  const end = (change: Partial<Answer>) => {
    cancelAnimationFrame(frame);
    update({ ...state, ...change, open: false });
  };
  const asked = settings.probabilities ? { logprobs: true, top_logprobs: ALTERNATIVES } : {};
  try {
    for await (const piece of complete({ model, messages, ...settings.sampling, ...asked }, signal)) {
      if ("text" in piece) {
        firstAt ||= performance.now();
        state.content += piece.text;
        if (piece.tokens) state.probabilities = [...(state.probabilities ?? []), ...piece.tokens];
        count((state.tokens ?? 0) + (piece.tokens?.length ?? 1));
        draw();
      } else if ("finish" in piece) state.finish = piece.finish;
      else count(piece.usage.completion_tokens);
    }
    end({});
  } catch (error) {
    end(signal.aborted ? { finish: "stopped" } : { error: error instanceof Error ? error.message : String(error) });
  }
}
