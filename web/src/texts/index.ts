/** The texts in the language that was chosen, else the browser's. `t` is a live binding: whoever draws after a
 *  change reads the new language, so nothing may keep a text across drawings. */
import { en, type Texts } from "./en";

export type { Texts };
export const LANGUAGES = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

const KEY = "nanochat.language";
const readers = new Set<() => void>();
let language: Language = "en";
export let t: Texts = en;

export const currentLanguage = (): Language => language;

export function watchLanguage(read: () => void): () => void {
  readers.add(read);
  return () => readers.delete(read);
}

/** Only English is in the first load. */
export async function chooseLanguage(next: Language, remember = true): Promise<void> {
  t = next === "zh" ? (await import("./zh")).zh : en;
  language = next;
  document.documentElement.lang = next;
  try {
    if (remember) localStorage.setItem(KEY, next);
  } catch {
    // storage may be forbidden; then the choice lasts as long as the page
  }
  for (const read of readers) read();
}

/** Call once, before the first drawing. */
export async function startLanguage(): Promise<void> {
  let chosen: string | null = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // as above
  }
  const wanted = (chosen ?? navigator.language).slice(0, 2);
  // a language that cannot be fetched is no reason to show nothing
  if (wanted === "zh") await chooseLanguage("zh", false).catch(() => undefined);
}
