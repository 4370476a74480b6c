import { beforeEach, expect, test, vi } from "vitest";
import { Problem } from "../api/problems";
import type { StoredFile } from "../api/types";
import { type Announcement, Upload, type Wire } from "./uploads";

const MIB = 2 ** 20;
const SIZE = 3 * MIB + 17;

/** A service that keeps what it is sent, and fails as it is told. */
class Service implements Wire {
  file: StoredFile | null = null;
  bytes = 0;
  parts: [number, number][] = [];
  removed = false;
  /** What to do with the next calls. */
  faults: (null | (() => never))[] = [];
  ends: "ready" | "rejected" = "ready";
  asked = 0;

  #fault() {
    this.faults.shift()?.();
  }
  #said(): StoredFile {
    return { ...(this.file as StoredFile), offset: this.bytes };
  }
  create = async (body: Announcement) => {
    this.#fault();
    this.file ??= { ...body, id: "f1", state: "uploading", offset: 0, path: `files/${body.kind}/${body.name}`, created_at: "" } as StoredFile;
    return this.#said();
  };
  get = async () => {
    this.asked += 1;
    this.#fault();
    if (this.file?.state === "checking") this.file = { ...this.file, state: this.ends, message: this.ends === "rejected" ? "line 2: no JSON" : null };
    return this.#said();
  };
  append = async (_: string, offset: number, data: Blob, signal: AbortSignal) => {
    signal.throwIfAborted();
    this.#fault();
    if (offset !== this.bytes) throw new Problem(409, "wrong_offset", "elsewhere");
    this.bytes += data.size;
    this.parts.push([offset, data.size]);
    if (this.bytes === SIZE) this.file = { ...(this.file as StoredFile), state: "checking" };
    return this.#said();
  };
  remove = async () => {
    this.removed = true;
  };
}

const lost = () => {
  throw new TypeError("Failed to fetch");
};
const refused = (status: number, code: string) => () => {
  throw new Problem(status, code, `refused: ${code}`);
};

let service: Service;
const source = Object.assign(new Blob([new Uint8Array(SIZE)]), { name: "My Talk.jsonl" });
const make = (changed = () => undefined as void) => new Upload(source, "conversations", service, changed);

const { setTimeout: later } = globalThis;

beforeEach(() => {
  service = new Service();
  vi.stubGlobal("setTimeout", (call: () => void) => later(call, 0)); // pauses take no time here
  return () => vi.unstubAllGlobals();
});

test("a file is read, sent in parts, checked, and its steps are told", async () => {
  const steps: string[] = [];
  const upload = make(() => steps.at(-1) !== upload.state.step && steps.push(upload.state.step));
  await upload.run();
  expect(steps).toEqual(["reading", "sending", "checking", "ready"]);
  expect(upload.state).toMatchObject({ step: "ready", done: SIZE, file: { path: "files/conversations/my-talk.jsonl" } });
  expect(service.parts.length).toBeGreaterThan(1);
});

test("a lost connection is waited for, and it goes on where the service is", async () => {
  const steps = new Set<string>();
  const upload = make(() => steps.add(upload.state.step));
  service.faults = [null, null, lost, lost, lost, null, refused(503, "unavailable")];
  await upload.run();
  expect(upload.state.step).toBe("ready");
  expect(steps.has("waiting")).toBe(true);
  expect(service.parts.reduce((sum, [, size]) => sum + size, 0)).toBe(SIZE);
});

test("a part that came although its answer did not is not sent twice", async () => {
  const upload = make();
  const plain = service.append;
  let torn = false;
  service.append = async (...said) => {
    const answer = await plain(...said);
    if (!torn) {
      torn = true;
      lost();
    }
    return answer;
  };
  await upload.run();
  expect(upload.state.step).toBe("ready");
  expect(service.parts.map(([offset]) => offset)).toEqual([...new Set(service.parts.map(([offset]) => offset))]);
});

test("a pause stops it and going on sends the rest", async () => {
  let told = false;
  const upload = make(() => {
    if (told || service.parts.length !== 1) return;
    told = true;
    upload.pause();
  });
  await upload.run();
  expect(upload.state.step).toBe("paused");
  expect(service.parts.length).toBe(1);
  await upload.run();
  expect(upload.state.step).toBe("ready");
  expect(service.parts[1]?.[0]).toBe(service.parts[0]?.[1]);
});

test("a refusal is its end, in the service's words; it can be tried again", async () => {
  service.faults = [refused(507, "quota_exceeded")];
  const upload = make();
  await upload.run();
  expect(upload.state).toMatchObject({ step: "failed", message: "refused: quota_exceeded" });
  await upload.run();
  expect(upload.state.step).toBe("ready");
});

test("a rejected file says why", async () => {
  service.ends = "rejected";
  const upload = make();
  await upload.run();
  expect(upload.state).toMatchObject({ step: "rejected", message: "line 2: no JSON" });
});

test("one that is cancelled while it is announced leaves nothing either", async () => {
  let answer: () => void = () => undefined;
  const create = service.create;
  service.create = async (body) => {
    await new Promise<void>((resolve) => (answer = resolve));
    return create(body);
  };
  const upload = make();
  const run = upload.run();
  await vi.waitFor(() => expect(upload.state.step).toBe("sending"));
  const cancelled = upload.cancel();
  answer();
  await Promise.all([run, cancelled]);
  expect(service.removed).toBe(true);
  expect(service.parts).toEqual([]);
});

test("a file whose name says nothing is called by its digest, and cancelling removes what had come", async () => {
  const unnamed = Object.assign(new Blob([new Uint8Array(SIZE)]), { name: "语料.TXT" });
  const upload = new Upload(unnamed, null, service, () => upload.state.done > 0 && upload.state.step === "sending" && upload.pause());
  await upload.run();
  expect(upload.state).toMatchObject({ kind: "text", step: "paused" });
  expect(service.file?.name).toMatch(/^upload-[0-9a-f]{8}\.txt$/);
  await upload.cancel();
  expect(service.removed).toBe(true);
});
