import { useEffect, useRef } from "react";

/** Single keys as commands, while nobody is writing or pressing a button with them. */
export function useKeys(commands: Record<string, () => void>): void {
  const now = useRef(commands);
  now.current = commands;
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const target = event.target as HTMLElement;
      if (target.closest("input, select, textarea, [contenteditable]")) return;
      // Enter on a link or a button is theirs
      if (event.key === "Enter" && target.closest("a, button, summary")) return;
      const command = now.current[event.key];
      if (!command) return;
      event.preventDefault();
      command();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}
