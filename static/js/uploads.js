/**
 * Uploads in pieces, with a panel that shows how far they are.
 *
 * A file that stopped half way, by a lost network or a closed page, goes on where it
 * was when it is given again. `address` is where uploads begin (tus); `done(folder)`
 * is called for each file that is in its place.
 */

import { Upload } from "tus-js-client";
import { token } from "./token.js";

const PIECE_BYTES = 8 << 20;
const AT_ONCE = 3;
const RETRIES_MS = [0, 1000, 3000, 5000, 10_000];
const MAX_FILES = 2000;

/** The files of a drop, each with its path inside the folders that were dropped. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, path: file.name }));
  const found = [];
  while (entries.length && found.length < MAX_FILES) {
    const entry = entries.shift();
    if (entry.isFile) {
      const file = await new Promise((give, fail) => entry.file(give, fail));
      found.push({ file, path: entry.fullPath.replace(/^\//, "") });
      continue;
    }
    const reader = entry.createReader();
    // A reader gives a part at a time, and nothing at the end.
    for (let more = [null]; more.length; entries.push(...more.filter(Boolean))) {
      more = await new Promise((give, fail) => reader.readEntries(give, fail));
    }
  }
  return found;
}

/** Follow drops of files on `element`. Returns undo. */
export function acceptFiles(element, uploads) {
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  const over = (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    element.dataset.dropping = "";
  };
  const out = () => delete element.dataset.dropping;
  const drop = async (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    out();
    uploads.add(await dropped(event.dataTransfer));
  };
  const listeners = { dragover: over, dragleave: out, drop };
  for (const [name, listener] of Object.entries(listeners)) element.addEventListener(name, listener);
  return () => {
    for (const [name, listener] of Object.entries(listeners)) element.removeEventListener(name, listener);
  };
}

/** The sentence and the kind of an error's answer. */
function reason(error) {
  try {
    const { error: text, kind } = JSON.parse(error.originalResponse.getBody());
    return { text, kind };
  } catch {
    const status = error.originalResponse?.getStatus();
    if (status === 403) return { text: "you may not put files here" };
    return { text: status ? `refused (${status})` : "the connection was lost" };
  }
}

function mayRetry(error) {
  const status = error.originalResponse?.getStatus() ?? 0;
  const isPiece = error.originalRequest?.getMethod() === "PATCH";
  return !status || status >= 500 || (status === 409 && isPiece);
}

export class Uploads {
  constructor(address, done = () => {}) {
    Object.assign(this, { address, done });
    this.waiting = [];
    this.running = 0;
    addEventListener("beforeunload", (event) => this.running && event.preventDefault());
  }

  /** Send files, each `{ file, path }`, to `address` or to where the next ones go. */
  add(files, address = this.address) {
    for (const { file, path } of files) {
      const row = new Row(path, this.panel());
      this.waiting.push({ file, path, address, row });
      row.cancelled = () => (this.waiting = this.waiting.filter((one) => one.row !== row));
    }
    this.next();
  }

  next() {
    while (this.running < AT_ONCE && this.waiting.length) {
      this.running += 1;
      this.send(this.waiting.shift());
    }
  }

  send(job, conflict = "") {
    const { file, path, address, row } = job;
    let isOver = false;
    const over = () => {
      if (isOver) return;
      isOver = true;
      this.running -= 1;
      this.next();
    };
    const again = (word) => {
      this.running += 1;
      this.send(job, word);
    };
    let folder = "";
    const upload = new Upload(file, {
      endpoint: address,
      chunkSize: PIECE_BYTES,
      retryDelays: RETRIES_MS,
      metadata: { filename: path, conflict },
      headers: { "X-CSRFToken": token(), Accept: "application/json" },
      fingerprint: async () => ["kode", address, path, conflict, file.size, file.lastModified].join("\n"),
      removeFingerprintOnSuccess: true,
      onShouldRetry: mayRetry,
      onAfterResponse: (_, answer) => (folder = answer.getHeader("Kode-Folder") ?? folder),
      onProgress: (sent, all) => row.tell(all ? sent / all : 0),
      onSuccess: () => {
        row.finish(decodeURIComponent(folder));
        over();
        this.done(folder);
      },
      onError: (error) => {
        over();
        const { text, kind } = reason(error);
        row.fail(text, kind === "Exists" ? { Replace: () => again("replace"), "Keep both": () => again("both") } : { "Try again": () => again(conflict) });
      },
    });
    row.tell(0);
    row.cancelled = () => {
      upload.abort(true).catch(() => {}); // what is left there is swept later
      over();
    };
    upload.findPreviousUploads().then((known) => {
      if (isOver) return;
      if (known.length) upload.resumeFromPreviousUpload(known[0]);
      upload.start();
    });
  }

  panel() {
    let panel = document.getElementById("uploads");
    if (!panel) {
      panel = document.createElement("section");
      panel.id = "uploads";
      panel.setAttribute("aria-label", "Uploads");
      panel.setAttribute("role", "status");
      document.body.append(panel);
    }
    return panel;
  }
}

/** One file in the panel. */
class Row {
  constructor(path, panel) {
    this.element = document.createElement("div");
    this.element.className = "upload";
    this.element.innerHTML =
      '<div class="line"><span class="cut"></span><span class="push figure muted"></span><span class="line"></span><button type="button" class="button quiet tight square"><svg class="icon" aria-hidden="true"><use></use></svg></button></div><svg class="meter" aria-hidden="true"><rect width="100%" height="100%"/><rect width="0" height="100%"/></svg>';
    [this.name, this.said, this.choices] = this.element.querySelectorAll("span");
    this.button = this.element.querySelector("button");
    const icons = document.querySelector(".icon use").getAttribute("href").split("#")[0];
    this.element.querySelector("use").setAttribute("href", `${icons}#x`);
    this.bar = this.element.querySelectorAll("rect")[1];
    this.name.textContent = this.name.title = path;
    this.said.textContent = "waiting";
    this.button.setAttribute("aria-label", `Cancel ${path}`);
    this.button.onclick = () => {
      this.cancelled?.();
      this.element.remove();
    };
    panel.append(this.element);
  }

  tell(share) {
    this.choices.replaceChildren();
    delete this.element.dataset.state;
    this.said.textContent = `${Math.floor(100 * share)} %`;
    this.bar.setAttribute("width", `${(100 * share).toFixed(1)}%`);
  }

  finish(folder) {
    this.tell(1);
    this.cancelled = undefined;
    this.said.textContent = folder ? `in ${folder}` : "done";
    this.element.dataset.state = "done";
    this.button.setAttribute("aria-label", `Hide ${this.name.title}`);
    setTimeout(() => this.element.remove(), 6000);
  }

  fail(text, choices) {
    this.cancelled = undefined;
    this.said.textContent = text;
    this.element.dataset.state = "failed";
    this.choices.replaceChildren(
      ...Object.entries(choices).map(([word, act]) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "button tight";
        button.textContent = word;
        button.onclick = act;
        return button;
      }),
    );
  }
}
