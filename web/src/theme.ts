/** Light or dark: the system's, until a person chooses. public/theme.js applies a choice before the first paint. */
const KEY = "nanochat.theme";
const CHANGED = "nanochat:theme";
export type Theme = "light" | "dark";

const system = () => matchMedia("(prefers-color-scheme: dark)");

export function currentTheme(): Theme {
  const chosen = document.documentElement.dataset["theme"];
  return chosen === "light" || chosen === "dark" ? chosen : system().matches ? "dark" : "light";
}

export function chooseTheme(theme: Theme): void {
  document.documentElement.dataset["theme"] = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // storage may be forbidden; then the choice lasts as long as the page
  }
  dispatchEvent(new Event(CHANGED));
}

/** Calls `notify` on every change; returns how to stop. */
export function themeChanged(notify: () => void): () => void {
  const media = system();
  media.addEventListener("change", notify);
  addEventListener(CHANGED, notify);
  return () => {
    media.removeEventListener("change", notify);
    removeEventListener(CHANGED, notify);
  };
}
