/** One live connection that outlives its sockets: remembers a cursor per channel, reconnects with backoff and
 *  goes on from there, so nothing is missed or seen twice. Not covered: a reader's own idea of `rewind`. */

export type Status = "connecting" | "live" | "reconnecting" | "ended";
export type Frame = { op: string; channel?: string; [key: string]: unknown };

export type LiveOptions = {
  /** Path on this host, e.g. /runs/r1/stream. */
  path: string;
  /** Channel → where to go on from; empty for streams without a cursor. */
  cursors: Record<string, number>;
  onFrame: (frame: Frame) => void;
  onStatus: (status: Status) => void;
  /** For tests. */
  open?: (url: string) => WebSocket;
  origin?: string;
};

const FIRST_DELAY_MS = 300;
const LAST_DELAY_MS = 10_000;
/** A silent connection may be dead without anybody noticing (sleep, Wi-Fi): ask. */
const PING_MS = 20_000;
/** Not worth another try: not allowed (4401, 4403), no such run (4404). */
const FINAL_CODES = [4401, 4403, 4404];

export class LiveConnection {
  readonly cursors: Record<string, number>;
  private socket: WebSocket | null = null;
  private failures = 0;
  private closed = false;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private pinger: ReturnType<typeof setInterval> | undefined;
  private heard = true;

  constructor(private readonly options: LiveOptions) {
    this.cursors = { ...options.cursors };
    this.connect();
  }

  /** Ends it for good. */
  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    clearInterval(this.pinger);
    this.socket?.close(1000);
  }

  url(): string {
    const origin = this.options.origin ?? location.origin;
    const url = new URL(this.options.path, origin.replace(/^http/, "ws"));
    const channels = Object.keys(this.cursors);
    if (channels.length) url.searchParams.set("channels", channels.join(","));
    for (const [channel, after] of Object.entries(this.cursors)) url.searchParams.set(`after_${channel}`, String(after));
    return url.href;
  }

  private connect(): void {
    this.options.onStatus(this.failures ? "reconnecting" : "connecting");
    const open = this.options.open ?? ((url: string) => new WebSocket(url));
    const socket = open(this.url());
    this.socket = socket;
    socket.onmessage = (event: MessageEvent<string>) => this.receive(JSON.parse(event.data) as Frame);
    socket.onclose = (event) => {
      clearInterval(this.pinger);
      if (this.closed || this.socket !== socket) return;
      if (FINAL_CODES.includes(event.code)) return this.end();
      const delay = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.failures);
      this.failures += 1;
      this.options.onStatus("reconnecting");
      // jitter: a restarted server should not meet all its readers in the same millisecond
      this.retry = setTimeout(() => this.connect(), delay * (0.7 + 0.6 * Math.random()));
    };
    this.heard = true;
    this.pinger = setInterval(() => {
      if (socket.readyState !== 1) return;
      if (!this.heard) return socket.close(4000);
      this.heard = false;
      socket.send('{"op":"ping"}');
    }, PING_MS);
  }

  private receive(frame: Frame): void {
    this.heard = true;
    if (frame.op === "welcome") {
      this.failures = 0;
      this.options.onStatus("live");
    }
    const channel = frame.channel;
    if (channel !== undefined && channel in this.cursors) {
      if (frame.op === "batch" || frame.op === "state") this.cursors[channel] = frame["last"] as number;
      if (frame.op === "gap") this.cursors[channel] = frame["to"] as number;
    }
    this.options.onFrame(frame);
    if (frame.op === "end") this.end();
  }

  private end(): void {
    this.close();
    this.options.onStatus("ended");
  }
}
