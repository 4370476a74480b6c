/** Where the service asks for keys: everything else waits behind this page. */
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { signIn } from "../api/session";
import { t } from "../texts";
import { Button, Card } from "../ui/basics";

export function SignInPage() {
  const queries = useQueryClient();
  const [key, setKey] = useState("");
  const [said, setSaid] = useState<string | null>(null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    setSaid(null);
    try {
      await signIn(key.trim());
      queries.clear();
    } catch (error) {
      setSaid(error instanceof Error ? error.message : String(error));
    }
  }

  return (
    <main className="mx-auto max-w-md px-3 py-16">
      <Card title={<label htmlFor="key">{t.signIn.title}</label>}>
        <form onSubmit={(event) => void submit(event)} className="flex flex-col gap-3 p-4">
          <p className="text-soft">{t.signIn.explain}</p>
          <input
            id="key"
            type="password"
            autoComplete="current-password"
            required
            value={key}
            placeholder="nck_…"
            onChange={(event) => setKey(event.target.value)}
            className="w-full rounded-md border border-line bg-well px-3 py-1.5 font-mono"
          />
          {said && <p role="alert" className="text-bad">{said}</p>}
          <Button type="submit" look="primary">{t.signIn.go}</Button>
        </form>
      </Card>
    </main>
  );
}
