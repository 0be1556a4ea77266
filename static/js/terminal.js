/**
 * A terminal on a page: xterm.js, joined to a shell by a socket.
 *
 * Every byte of output has a number. What is drawn is acknowledged, so a flood
 * waits on the server; after a break the socket asks for the first byte missing.
 */

import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { Terminal } from "@xterm/xterm";

import { guard } from "./guard.js";
import { GONE, NOT_FOUND, SIGNED_OUT, Socket, socketUrl } from "./socket.js";

const ACK_BYTES = 32 << 10;
const INPUT_BYTES = 32 << 10;
const SCROLLBACK = 10_000;
const KEYS = {
  esc: "\x1b",
  tab: "\t",
  left: "\x1b[D",
  up: "\x1b[A",
  down: "\x1b[B",
  right: "\x1b[C",
  pipe: "|",
};
const LOCAL = /^https?:\/\/(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):(\d{2,5})/;
const WORDS = {
  [SIGNED_OUT]: "signed out: reload the page to sign in",
  [NOT_FOUND]: "this terminal is not there any more",
  [GONE]: "ended",
};

const MODIFIERS = ["ctrl", "alt"];

function hold(button, on) {
  button.setAttribute("aria-pressed", on ? "true" : "false");
}

/** One typed character as it is with ctrl or alt held; longer text as it is. */
export function modified(text, names) {
  if (text.length !== 1) return text;
  const control = names.includes("ctrl") ? String.fromCharCode(text.toUpperCase().charCodeAt(0) & 31) : text;
  return names.includes("alt") ? `\x1b${control}` : control;
}

/** The port of a link to the sandbox's own loopback, or null. */
export function localPort(uri) {
  const found = LOCAL.exec(uri);
  return found ? Number(found[1]) : null;
}

/** The sixteen colours and the rest, as the style sheet has them now. */
function colours(element) {
  const style = getComputedStyle(element);
  const value = (name) => style.getPropertyValue(`--term-${name}`).trim();
  const names = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
  const bright = names.map((n) => `bright${n[0].toUpperCase()}${n.slice(1)}`);
  const theme = Object.fromEntries([...names, ...bright].map((n, i) => [n, value(i)]));
  return {
    ...theme,
    background: value("bg"),
    foreground: value("text"),
    cursor: value("cursor"),
    selectionBackground: value("select"),
  };
}

export class Shell {
  constructor(element) {
    this.element = element;
    this.view = element.closest(".terminal-view") ?? element.parentElement;
    this.mayType = element.dataset.readonly !== "yes";
    this.offset = null;
    this.epoch = "";
    this.acked = 0;
    this.disposables = [];
    this.makeTerminal();
    this.socket = new Socket({
      address: () => this.address(),
      message: (data) => (data instanceof Uint8Array ? this.draw(data) : this.control(data)),
      state: (name, code) => this.showState(name, code),
    });
    this.listen();
    this.resized(this.terminal.rows, this.terminal.cols);
  }

  makeTerminal() {
    const terminal = new Terminal({
      allowProposedApi: true, // unicode versions
      fontFamily: "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace",
      fontSize: Number(localStorage.getItem("terminal-font-size")) || 13,
      scrollback: SCROLLBACK,
      minimumContrastRatio: 4.5,
      theme: colours(this.element),
      disableStdin: !this.mayType,
      linkHandler: { activate: (_event, uri) => this.openLink(uri) },
    });
    this.terminal = terminal;
    this.fit = new FitAddon();
    this.search = new SearchAddon();
    terminal.loadAddon(this.fit);
    terminal.loadAddon(this.search);
    terminal.loadAddon(new Unicode11Addon());
    terminal.loadAddon(new WebLinksAddon((_event, uri) => this.openLink(uri)));
    terminal.unicode.activeVersion = "11";
    guard(terminal);
    terminal.open(this.element);
    this.fit.fit();
    terminal.onData((text) => this.type(new TextEncoder().encode(this.held(text))));
    terminal.onBinary((text) => this.type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    terminal.onResize(({ rows, cols }) => this.resized(rows, cols));
    terminal.attachCustomKeyEventHandler((event) => this.key(event));
    if (this.mayType) terminal.focus();
  }

  listen() {
    const observer = new ResizeObserver(() => this.fitSoon());
    observer.observe(this.element);
    const theme = new MutationObserver(() => this.recolour());
    theme.observe(document.documentElement, { attributes: true });
    const media = matchMedia("(prefers-color-scheme: dark)");
    const recolour = () => this.recolour();
    media.addEventListener("change", recolour);
    const tap = (event) => this.tap(event);
    this.view.addEventListener("click", tap);
    this.disposables.push(
      () => observer.disconnect(),
      () => theme.disconnect(),
      () => media.removeEventListener("change", recolour),
      () => this.view.removeEventListener("click", tap),
    );
  }

  address() {
    const { rows, cols } = this.terminal;
    const query = { rows, cols };
    if (this.offset !== null) Object.assign(query, { from: this.offset, epoch: this.epoch });
    return socketUrl(this.element.dataset.terminalUrl, query);
  }

  control(message) {
    if ("start" in message) {
      if (message.reset && this.offset !== null && message.start === 0 && this.epoch !== message.epoch) {
        // The web process began anew and the shell did not: keep what is drawn.
        this.terminal.write("\r\n");
      } else if (message.reset) {
        this.terminal.reset();
        if (message.cut) this.terminal.write("\x1b[2m[earlier output is no longer kept]\x1b[m\r\n");
        this.terminal.write(message.modes ?? "");
      }
      this.offset = this.acked = message.start;
      this.epoch = message.epoch;
      this.show(message.drive ? "connected" : "you watch", "running");
    } else if ("exit" in message) {
      const code = message.exit === null ? "" : ` with code ${message.exit}`;
      this.terminal.write(`\r\n\x1b[2m[this shell ended${code}]\x1b[m\r\n`);
      this.ended = `ended${code}`;
      const again = this.view.querySelector("[data-terminal-again]");
      if (again) again.hidden = false;
    } else if ("wait" in message) {
      this.show(message.wait, "working");
    }
  }

  draw(data) {
    this.offset += data.length;
    const drawn = this.offset;
    const epoch = this.epoch;
    this.terminal.write(data, () => {
      if (epoch !== this.epoch) return;
      if (drawn - this.acked >= ACK_BYTES || drawn === this.offset) {
        this.acked = drawn;
        this.socket.send({ ack: drawn });
      }
    });
  }

  type(bytes) {
    if (!this.mayType) return;
    if (!this.socket.isOpen) {
      this.show("not connected: that key was not sent", "error");
      return;
    }
    for (let at = 0; at < bytes.length; at += INPUT_BYTES) {
      this.socket.send(bytes.subarray(at, at + INPUT_BYTES));
    }
  }

  /** A key of the key bar; ctrl and alt hold for the next one. */
  tap(event) {
    const button = event.target.closest("[data-key]");
    if (!button) return;
    const name = button.dataset.key;
    if (MODIFIERS.includes(name)) hold(button, button.getAttribute("aria-pressed") !== "true");
    else this.terminal.input(KEYS[name] ?? name);
    this.terminal.focus();
  }

  /** Typed text with the held modifiers, which are let go of by it. */
  held(text) {
    const pressed = this.view.querySelectorAll("[data-key][aria-pressed=true]");
    const names = Array.from(pressed, (button) => button.dataset.key);
    for (const button of pressed) hold(button, false);
    return modified(text, names);
  }

  key(event) {
    if (event.type === "keydown" && event.ctrlKey && event.shiftKey && event.key === "Escape") {
      this.terminal.blur();
      return false;
    }
    if (event.type === "keydown" && event.ctrlKey && event.shiftKey && event.code === "KeyC") {
      navigator.clipboard?.writeText(this.terminal.getSelection());
      event.preventDefault();
      return false;
    }
    // Ctrl+Shift+V is the browser's own paste.
    return !(event.ctrlKey && event.shiftKey && event.code === "KeyV");
  }

  fitSoon() {
    clearTimeout(this.fitting);
    this.fitting = setTimeout(() => this.element.isConnected && this.fit.fit(), 100);
  }

  resized(rows, cols) {
    this.socket?.send({ size: [rows, cols] });
    const size = this.view.querySelector("[data-terminal-size]");
    if (size) size.textContent = `${cols} × ${rows}`;
  }

  recolour() {
    this.terminal.options.theme = colours(this.element);
  }

  /** A server of the sandbox opens as its preview, anything else after a question. */
  openLink(uri) {
    const port = localPort(uri);
    const template = this.view.querySelector("[data-ports]")?.dataset.open;
    if (port !== null && template) {
      openPort(template, port);
      return;
    }
    const url = new URL(uri);
    if (!["http:", "https:"].includes(url.protocol)) return;
    if (confirm(`Open ${url.host} in a new tab?`)) window.open(url, "_blank", "noopener");
  }

  showState(name, code) {
    if (name === "lost") this.show("connection lost, trying again", "working");
    if (name === "closed") this.show(this.ended ?? WORDS[code] ?? "closed", "gone");
  }

  show(text, state) {
    const status = this.view.querySelector("[data-terminal-status]");
    if (!status) return;
    status.dataset.state = state;
    (status.querySelector("span") ?? status).textContent = text;
  }

  dispose() {
    for (const undo of this.disposables) undo();
    this.socket.dispose();
    this.terminal.dispose();
  }
}

/** Post to the address that opens a port's preview, in a new tab. */
export function openPort(template, port) {
  const form = document.createElement("form");
  Object.assign(form, { method: "post", target: "_blank", action: template.replace("PORT", port) });
  form.rel = "noopener";
  const token = JSON.parse(document.body.getAttribute("hx-headers") ?? "{}")["X-CSRFToken"];
  const field = Object.assign(document.createElement("input"), {
    type: "hidden",
    name: "csrfmiddlewaretoken",
    value: token ?? "",
  });
  form.append(field);
  document.body.append(form);
  form.submit();
  form.remove();
}
