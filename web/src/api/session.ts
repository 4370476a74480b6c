/** Who is signed in, where the service asks for keys. The session is a cookie that no script can read; what
 *  changes something also carries a token that only a page of this service knows. */
import { problemFrom } from "./problems";

export type Session = { name: string; scopes: string[]; csrf: string };

let session: Session | null = null;
let signedOut = false;
const readers = new Set<() => void>();

function change(next: Session | null, out: boolean): void {
  if (session === next && signedOut === out) return;
  session = next;
  signedOut = out;
  for (const read of readers) read();
}

export function watchSession(read: () => void): () => void {
  readers.add(read);
  return () => readers.delete(read);
}

export const isSignedOut = (): boolean => signedOut;
export const currentSession = (): Session | null => session;

/** What a key may not do is not offered; where no key is asked for, everything is. */
export const may = (scope: "read" | "submit" | "operate" | "infer"): boolean => session === null || session.scopes.includes(scope);

/** fetch, with the token where it is needed; an answer of 401 asks for a key. */
export async function send(input: string | Request, init?: RequestInit): Promise<Response> {
  const request = new Request(input, init);
  if (session && request.method !== "GET") request.headers.set("x-csrf-token", session.csrf);
  const response = await fetch(request);
  if (response.status === 401) change(null, true);
  return response;
}

/** What an earlier visit left; null where the service is open. */
export async function findSession(): Promise<void> {
  const response = await send("/session");
  if (response.ok) change((await response.json()) as Session | null, false);
}

/** Throws a Problem when it is no key. */
export async function signIn(key: string): Promise<void> {
  const headers = { "content-type": "application/json" };
  const response = await fetch("/login", { method: "POST", headers, body: JSON.stringify({ key }) });
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) throw problemFrom(response.status, body);
  change(body as Session, false);
}

export async function signOut(): Promise<void> {
  await fetch("/logout", { method: "POST" });
  change(null, true);
}
