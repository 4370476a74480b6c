/** HTTP to the service. Every failure is thrown as a Problem, so that queries and forms can show it. */
import createClient from "openapi-fetch";
import { Problem, problemFrom } from "./problems";
import type { paths } from "./schema";
import { send } from "./session";

export const api = createClient<paths>({ baseUrl: "/", fetch: (request) => send(request) });

type Answer<T> = { data?: T; error?: unknown; response: Response };

/** The data of an answer, or a thrown Problem. */
export async function unwrap<T>(answer: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await answer;
  if (!response.ok) throw problemFrom(response.status, error);
  return data as T;
}

/** For what is not described by OpenAPI (the /v1 routes' error shape, files). */
export async function getJson<T>(path: string): Promise<T> {
  const response = await send(path, { headers: { accept: "application/json" } });
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) throw problemFrom(response.status, body);
  if (body === null) throw new Problem(response.status, "no_json", `The service answered ${path} without JSON.`);
  return body as T;
}
