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

import { Uploads, acceptFiles } from "./uploads.js";
import { guard } from "./guard.js";
import { isReply, keyText, modified } from "./keys.js";
import { colours, FAMILY } from "./look.js";
import { openPort } from "./port.js";
import { Progress } from "./progress.js";
import { GONE, NOT_FOUND, SIGNED_OUT, Socket, socketUrl } from "./socket.js";
import { Unsent } from "./unsent.js";

const INPUT_BYTES = 32 << 10;
const SCROLLBACK = 10_000;
const FONT = { name: "terminal-font-size", usual: 13, smallest: 6, largest: 32 };
const TITLE_MS = 500;
const TITLE_LENGTH = 80;
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

/** The port of a link to the sandbox's own loopback, or null. */
export function localPort(uri) {
  const found = LOCAL.exec(uri);
  return found ? Number(found[1]) : null;
}

export class Shell {
  constructor(element) {
    this.element = element;
    this.view = element.closest(".terminal-view") ?? element.parentElement;
    this.mayType = element.dataset.readonly !== "yes";
    this.progress = new Progress();
    this.unsent = new Unsent();
    this.isJoined = false; // to the shell: the socket is open and has said so
    this.fontSize = Number(localStorage.getItem(FONT.name)) || FONT.usual;
    this.isFollowing = false;
    this.disposables = [];
    this.makeTerminal();
    this.socket = new Socket({
      address: () => this.address(),
      message: (data) => (data instanceof Uint8Array ? this.draw(data) : this.control(data)),
      state: (name, code) => this.showState(name, code),
    });
    this.listen();
    this.showSize();
  }

  makeTerminal() {
    const terminal = new Terminal({
      allowProposedApi: true, // unicode versions
      fontFamily: FAMILY,
      fontSize: this.fontSize,
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
    terminal.onData((text) => (isReply(text) ? this.reply(text) : this.typeText(this.held(text))));
    terminal.onBinary((text) => this.type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    terminal.onResize(() => this.showSize());
    terminal.onTitleChange((title) => this.titled(title));
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
    const find = this.view.querySelector("[data-terminal-find]");
    const seek = (event) => this.seek(find, event);
    find?.addEventListener("keydown", seek);
    find?.addEventListener("input", seek);
    const { dropUrl } = this.element.dataset;
    if (dropUrl) this.disposables.push(acceptFiles(this.element, new Uploads(dropUrl)));
    this.disposables.push(
      () => observer.disconnect(),
      () => theme.disconnect(),
      () => media.removeEventListener("change", recolour),
      () => this.view.removeEventListener("click", tap),
      () => find?.removeEventListener("keydown", seek),
      () => find?.removeEventListener("input", seek),
    );
  }

  address() {
    const { rows, cols } = this.room();
    this.told = `${rows} ${cols}`;
    return socketUrl(this.element.dataset.terminalUrl, { rows, cols, ...this.progress.query });
  }

  control(message) {
    if ("start" in message) {
      if (message.reset) {
        this.terminal.reset();
        if (message.cut) this.terminal.write("\x1b[2m[earlier output is no longer kept]\x1b[m\r\n");
        this.terminal.write(message.modes ?? "");
      }
      this.progress.begin(message);
      this.isJoined = true;
      this.allow(message.drive);
      if (message.gap) this.show("connected; output of the break may be missing", "running");
      for (const bytes of this.unsent.take()) this.type(bytes);
    } else if ("drive" in message) {
      this.allow(message.drive);
    } else if ("recording" in message) {
      this.recorded(message.recording);
    } else if ("size" in message) {
      this.sized(...message.size, message.yours);
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

  /** Everybody who looks sees that it is kept. */
  recorded(isRecorded) {
    const button = this.view.querySelector("[data-terminal-record]");
    if (button) hold(button, isRecorded);
    const sign = this.view.querySelector("[data-terminal-recorded]");
    if (sign) sign.hidden = !isRecorded;
  }

  draw(data) {
    for (const part of this.progress.take(data)) {
      this.terminal.write(part.piece, () => {
        const ack = this.progress.draw(part);
        if (ack !== null) this.socket.send({ ack });
      });
    }
  }

  /** What the terminal itself says; the server lets only the driver's through. */
  reply(text) {
    // A program that asked long ago has its answer: now it would be typed to a shell.
    if (this.mayType && !this.progress.isReplay) this.socket.send({ reply: text });
  }

  typeText(text) {
    this.type(new TextEncoder().encode(text));
  }

  /** Rights as the server has them, which may change while one looks. */
  allow(mayType) {
    this.mayType = mayType;
    this.terminal.options.disableStdin = !mayType;
    this.show(mayType ? "connected" : "you watch", "running");
  }

  type(bytes) {
    if (!this.mayType) return;
    if (!this.isJoined || !this.socket.isOpen) {
      const isKept = !this.socket.over && this.unsent.add(bytes);
      this.show(`not connected: ${isKept ? "keys wait" : "that key was not sent"}`, "working");
      return;
    }
    for (let at = 0; at < bytes.length; at += INPUT_BYTES) {
      this.socket.send(bytes.subarray(at, at + INPUT_BYTES));
    }
  }

  /** A key of the key bar; ctrl and alt hold for the next one. */
  tap(event) {
    if (event.target.closest("[data-terminal-search]")) this.openSearch();
    if (event.target.closest("[data-terminal-copy]")) this.copyAll();
    const record = event.target.closest("[data-terminal-record]");
    if (record) this.socket.send({ record: record.getAttribute("aria-pressed") !== "true" });
    const button = event.target.closest("[data-key]");
    if (!button) return;
    const name = button.dataset.key;
    if (MODIFIERS.includes(name)) hold(button, button.getAttribute("aria-pressed") !== "true");
    else this.terminal.input(keyText(name, this.terminal.modes.applicationCursorKeysMode));
    this.terminal.focus();
  }

  /** Typed text with the held modifiers, which are let go of by it. */
  held(text) {
    const pressed = this.view.querySelectorAll("[data-key][aria-pressed=true]");
    const names = Array.from(pressed, (button) => button.dataset.key);
    for (const button of pressed) hold(button, false);
    return modified(text, names);
  }

  /** Keys with ctrl and shift are the page's; false keeps one from the shell. */
  key(event) {
    if (!event.ctrlKey || !event.shiftKey) return true;
    const actions = {
      Escape: () => this.terminal.blur(),
      KeyC: () => navigator.clipboard?.writeText(this.terminal.getSelection()),
      KeyF: () => this.openSearch(),
      Equal: () => this.enlarge(1),
      Minus: () => this.enlarge(-1),
    };
    // Ctrl+Shift+V is the browser's own paste.
    if (event.code === "KeyV") return false;
    const action = actions[event.code];
    if (!action) return true;
    event.preventDefault();
    if (event.type === "keydown") action();
    return false;
  }

  copyAll() {
    this.terminal.selectAll();
    navigator.clipboard?.writeText(this.terminal.getSelection().trimEnd());
    this.terminal.clearSelection();
    this.show("output copied", "running");
  }

  openSearch() {
    const find = this.view.querySelector("[data-terminal-find]");
    if (!find) return;
    find.hidden = false;
    find.select();
    find.focus();
  }

  /** Search while one types; Enter goes on, with shift back, Escape ends it. */
  seek(find, event) {
    if (event.type === "input") {
      this.terminal.clearSelection(); // from the newest line on
      this.search.findPrevious(find.value);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (event.shiftKey) this.search.findNext(find.value);
      else this.search.findPrevious(find.value);
    } else if (event.key === "Escape") {
      find.hidden = true;
      this.terminal.clearSelection();
      this.terminal.focus();
    }
  }

  enlarge(step) {
    this.fontSize = Math.min(FONT.largest, Math.max(FONT.smallest, this.fontSize + step));
    localStorage.setItem(FONT.name, this.fontSize);
    if (!this.isFollowing) this.terminal.options.fontSize = this.fontSize;
    this.fitNow();
  }

  fitSoon() {
    clearTimeout(this.fitting);
    this.fitting = setTimeout(() => this.fitNow(), 100);
  }

  /** Tell the server what there is room for, and take it if one's own size counts. */
  fitNow() {
    if (!this.element.isConnected) return;
    const { rows, cols } = this.room();
    const told = `${rows} ${cols}`;
    if (told !== this.told && this.socket.send({ size: [rows, cols] })) this.told = told;
    if (this.isFollowing) this.sized(...this.size, false);
    else this.terminal.resize(cols, rows);
  }

  /** Rows and columns that fit into the element with the chosen font size. */
  room() {
    const { rows, cols } = this.fit.proposeDimensions() ?? this.terminal;
    const scale = this.terminal.options.fontSize / this.fontSize;
    const fitting = (count, usual) => Math.max(2, Math.floor(count * scale) || usual);
    return { rows: fitting(rows, 24), cols: fitting(cols, 80) };
  }

  /** The shell has this size: our own, or somebody else's, drawn smaller to fit. */
  sized(rows, cols, yours) {
    this.size = [rows, cols];
    this.isFollowing = !yours;
    const room = this.room();
    const scale = yours ? 1 : Math.min(1, room.cols / cols, room.rows / rows);
    const size = Math.max(FONT.smallest, Math.floor(this.fontSize * scale * 2) / 2);
    if (this.terminal.options.fontSize !== size) this.terminal.options.fontSize = size;
    if (yours) this.fitSoon();
    else this.terminal.resize(cols, rows);
  }

  showSize() {
    const size = this.view.querySelector("[data-terminal-size]");
    if (size) size.textContent = `${this.terminal.cols} × ${this.terminal.rows}`;
  }

  /** A program names its window: as text, short, and not more than twice a second. */
  titled(title) {
    this.title = title.slice(0, TITLE_LENGTH);
    this.titling ??= setTimeout(() => {
      this.titling = undefined;
      this.view.querySelector(".terminal-bar [aria-current]")?.setAttribute("title", this.title);
    }, TITLE_MS);
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
    if (!URL.canParse(uri)) return;
    const url = new URL(uri);
    if (!["http:", "https:"].includes(url.protocol)) return;
    if (confirm(`Open ${url.host} in a new tab?`)) window.open(url, "_blank", "noopener");
  }

  showState(name, code) {
    this.isJoined = false; // until the shell says where its output starts
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
    clearTimeout(this.fitting);
    clearTimeout(this.titling);
    this.socket.dispose();
    this.terminal.dispose();
  }
}
