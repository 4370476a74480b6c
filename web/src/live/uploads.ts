/** Files on their way to the service. They go on while other pages are looked at, after a lost connection, and
 *  when the same file is chosen again: the service knows it by its digest, and says from where. */
import { api, unwrap } from "../api/client";
import { Problem, problemFrom } from "../api/problems";
import { send } from "../api/session";
import type { StoredFile } from "../api/types";
import { guessKind, type Kind, plainName } from "../lib/files";
import { Sha256 } from "../lib/sha256";
import { t } from "../texts";

const MIB = 2 ** 20;
const READ_BYTES = 4 * MIB;
const [SMALLEST_PART, LARGEST_PART] = [MIB / 4, 8 * MIB];
/** A part that takes longer than this is too large, one that takes a sixth of it too small. */
const PART_MS = 3000;
const CHECK_MS = 500;
const WAITS_MS = [500, 1000, 2000, 4000, 8000];
/** A proxy's words for a server that is restarting. */
const AWAY = [502, 503, 504];

/** reading: for its digest. waiting: for the connection. */
export type Step = "reading" | "sending" | "waiting" | "paused" | "checking" | "ready" | "rejected" | "failed";

export type UploadState = {
  key: number;
  /** As the user calls it. */
  title: string;
  kind: Kind | null;
  size: number;
  /** Bytes read or acknowledged. */
  done: number;
  step: Step;
  message: string | null;
  file: StoredFile | null;
};

export type Source = Blob & { name: string };
export type Announcement = { name: string; kind: Kind; size: number; sha256: string };

/** What an upload says to the service. */
export type Wire = {
  /** Not to be aborted: whether the service has heard it would not be known then. */
  create: (body: Announcement) => Promise<StoredFile>;
  get: (id: string, signal: AbortSignal) => Promise<StoredFile>;
  append: (id: string, offset: number, data: Blob, signal: AbortSignal) => Promise<StoredFile>;
  remove: (id: string) => Promise<unknown>;
};

const http: Wire = {
  create: (body) => unwrap(api.POST("/files", { body })),
  get: (file_id, signal) => unwrap(api.GET("/files/{file_id}", { params: { path: { file_id } }, signal })),
  append: async (id, offset, body, signal) => {
    const headers = { "upload-offset": String(offset), "content-type": "application/octet-stream" };
    const response = await send(`/files/${id}`, { method: "PATCH", body, headers, signal });
    const answer: unknown = await response.json().catch(() => null);
    if (!response.ok) throw problemFrom(response.status, answer);
    return answer as StoredFile;
  },
  remove: (file_id) => unwrap(api.DELETE("/files/{file_id}", { params: { path: { file_id } } })),
};

let keys = 0;

export class Upload {
  state: UploadState;
  #control = new AbortController();
  #digest: string | null = null;
  #creating: Promise<StoredFile> | null = null;
  #part = MIB;

  constructor(
    readonly source: Source,
    kind: Kind | null,
    readonly wire: Wire,
    readonly changed: () => void,
  ) {
    this.state = { key: (keys += 1), title: source.name, kind, size: source.size, done: 0, step: "reading", message: null, file: null };
  }

  /** Begin, or go on after `pause` or a failure. */
  async run(): Promise<void> {
    const { signal } = (this.#control = new AbortController());
    if (this.source.size === 0) return this.#set({ step: "failed", message: t.files.nothing });
    try {
      this.#set({ step: this.#digest ? "sending" : "reading", message: null });
      const kind = this.state.kind ?? (await guessKind(this.source));
      this.#digest ??= await this.#measure(signal);
      const name = plainName(this.source.name) || `upload-${this.#digest.slice(0, 8)}${this.source.name.slice(this.source.name.lastIndexOf(".")).toLowerCase()}`;
      this.#set({ kind, step: "sending", done: this.state.file?.offset ?? 0 });
      await this.#send({ name, kind, size: this.source.size, sha256: this.#digest }, signal);
    } catch (error) {
      if (signal.aborted) return;
      this.#set({ step: "failed", message: error instanceof Error ? error.message : String(error) });
    }
  }

  pause(): void {
    this.#control.abort();
    this.#set({ step: "paused" });
  }

  /** What had come goes. */
  async cancel(): Promise<void> {
    this.#control.abort();
    const file = this.state.file ?? (await this.#creating?.catch(() => null));
    if (file && file.state !== "ready") await this.wire.remove(file.id).catch(() => undefined);
  }

  async #measure(signal: AbortSignal): Promise<string> {
    const digest = new Sha256();
    for (let at = 0; at < this.source.size; at += READ_BYTES) {
      digest.add(new Uint8Array(await this.source.slice(at, at + READ_BYTES).arrayBuffer()));
      signal.throwIfAborted();
      this.#set({ done: Math.min(this.source.size, at + READ_BYTES) });
    }
    return digest.hex();
  }

  async #send(body: Announcement, signal: AbortSignal): Promise<void> {
    let file = await this.#patiently(() => (this.#creating = this.wire.create(body)), signal);
    while (file.state === "uploading" || file.state === "checking") {
      signal.throwIfAborted();
      const { id, state } = file;
      this.#set({ file, done: file.offset, step: state === "checking" ? "checking" : "sending" });
      if (state === "checking") await wait(CHECK_MS, signal);
      file = (state === "uploading" && (await this.#append(file, signal))) || (await this.#patiently(() => this.wire.get(id, signal), signal));
    }
    this.#set({ file, done: file.offset, step: file.state, message: file.message ?? null });
  }

  /** The file with one part more; null when the service has to be asked how far it is. */
  async #append(file: StoredFile, signal: AbortSignal): Promise<StoredFile | null> {
    const began = Date.now();
    try {
      const grown = await this.wire.append(file.id, file.offset, this.source.slice(file.offset, file.offset + this.#part), signal);
      const took = Date.now() - began;
      if (took < PART_MS / 6) this.#part = Math.min(LARGEST_PART, this.#part * 2);
      if (took > PART_MS) this.#part = Math.max(SMALLEST_PART, this.#part / 2);
      return grown;
    } catch (error) {
      // somebody else sends the same file, or the last part has come although its answer has not
      const elsewhere = error instanceof Problem && error.status === 409;
      if (signal.aborted || !(isAway(error) || elsewhere)) throw error;
      this.#part = Math.max(SMALLEST_PART, this.#part / 2);
      return null;
    }
  }

  /** The answer, however long the connection is away. */
  async #patiently<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let tries = 0; ; tries += 1)
      try {
        return await call();
      } catch (error) {
        if (signal.aborted || !isAway(error)) throw error;
        this.#set({ step: "waiting" });
        await wait(WAITS_MS[Math.min(tries, WAITS_MS.length - 1)] as number, signal);
      }
  }

  #set(change: Partial<UploadState>): void {
    this.state = { ...this.state, ...change };
    this.changed();
  }
}

/** fetch says a TypeError when there is no connection. */
const isAway = (error: unknown): boolean => error instanceof TypeError || (error instanceof Problem && AWAY.includes(error.status));

/** Until then, or until the browser says that it is online again. */
function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", done);
      signal.removeEventListener("abort", done);
      if (signal.aborted) reject(signal.reason as Error);
      else resolve();
    };
    const timer = setTimeout(done, ms);
    globalThis.addEventListener?.("online", done);
    signal.addEventListener("abort", done);
  });
}

const ENDED: readonly Step[] = ["ready", "rejected", "failed"];
const BUSY: readonly Step[] = ["reading", "sending", "waiting", "checking"];

/** The uploads of this window. */
class Uploads {
  /** Called when one is ready. */
  onReady: () => void = () => undefined;
  #all: Upload[] = [];
  #seen: readonly UploadState[] = [];
  readonly #readers = new Set<() => void>();

  watch = (read: () => void): (() => void) => {
    this.#readers.add(read);
    return () => this.#readers.delete(read);
  };
  seen = (): readonly UploadState[] => this.#seen;

  /** One after the other, so that a slow line is not divided. */
  add(sources: Iterable<Source>, kind: Kind | null): void {
    const fresh = [...sources].map((source) => new Upload(source, kind, http, this.#changed));
    this.#all = [...fresh.toReversed(), ...this.#all];
    this.#changed();
    void fresh.reduce((before, upload) => before.then(() => this.go(upload)), Promise.resolve());
  }

  async go(upload: Upload): Promise<void> {
    if (!this.#all.includes(upload)) return;
    await upload.run();
    if (upload.state.step === "ready") this.onReady();
  }

  find(key: number): Upload | undefined {
    return this.#all.find(({ state }) => state.key === key);
  }

  /** Stop it if it has not ended, and take it off the list. */
  async drop(upload: Upload): Promise<void> {
    this.#all = this.#all.filter((one) => one !== upload);
    this.#changed();
    if (!ENDED.includes(upload.state.step)) await upload.cancel();
  }

  #changed = (): void => {
    this.#seen = this.#all.map(({ state }) => state);
    for (const read of this.#readers) read();
  };

  constructor() {
    // a window that closes takes its uploads along
    globalThis.addEventListener?.("beforeunload", (event) => {
      if (this.#seen.some(({ step }) => BUSY.includes(step))) event.preventDefault();
    });
  }
}

export const uploads = new Uploads();
