/**
 * A websocket that comes back by itself; the only place that reconnects.
 *
 * `address()` is asked before each try, so it can carry how far one has come.
 * `message(data)` gets text frames parsed from JSON and binary ones as bytes.
 * `state(name, detail)` hears "open", "lost" (will try again) and "closed" (will
 * not: `detail` is the close code).
 */

export const SIGNED_OUT = 4401;
export const REFUSED = 4403;
export const NOT_FOUND = 4404;
export const STALLED = 4408;
export const GONE = 4410;
const FINAL = new Set([SIGNED_OUT, REFUSED, NOT_FOUND, GONE]);
const FIRST_MS = 250;
const LONGEST_MS = 10_000;

/** Milliseconds before try number `n` (from 0): growing, with some chance in it. */
export function delay(n, random = Math.random()) {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** n) * (0.75 + random / 2);
}

export class Socket {
  constructor({ address, message, state, make = (url) => new WebSocket(url) }) {
    Object.assign(this, { address, message, state, make });
    this.tries = 0;
    this.over = false;
    this.wake = () => this.retryNow();
    globalThis.addEventListener?.("online", this.wake);
    this.connect();
  }

  connect() {
    this.timer = undefined;
    const socket = this.make(this.address());
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.state("open");
    socket.onmessage = ({ data }) => {
      this.tries = 0;
      this.message(typeof data === "string" ? JSON.parse(data) : new Uint8Array(data));
    };
    socket.onclose = ({ code }) => this.closed(code);
  }

  closed(code) {
    if (this.over) return;
    if (FINAL.has(code)) {
      this.over = true;
      this.state("closed", code);
      return;
    }
    this.state("lost", code);
    this.timer = setTimeout(() => this.connect(), delay(this.tries++));
  }

  /** Try at once, if it is waiting to. */
  retryNow() {
    if (this.timer === undefined || this.over) return;
    clearTimeout(this.timer);
    this.connect();
  }

  get isOpen() {
    return this.socket.readyState === 1;
  }

  /** Send text or bytes; false when there is no connection now. */
  send(data) {
    if (!this.isOpen) return false;
    this.socket.send(typeof data === "object" && !(data instanceof Uint8Array) ? JSON.stringify(data) : data);
    return true;
  }

  dispose() {
    this.over = true;
    clearTimeout(this.timer);
    globalThis.removeEventListener?.("online", this.wake);
    this.socket.close();
  }
}

/** The websocket address of a path on this page's host. */
export function socketUrl(path, query = {}) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url.href;
}
