/**
 * The pages of files: the tree keeps open what is open, both follow what changes in
 * the sandbox, and files that are dropped or chosen are uploaded.
 */

import { Socket, socketUrl } from "./socket.js";
import { Uploads, acceptFiles } from "./uploads.js";

const MAX_WATCHED = 24;

/** Begin on a page with an element `[data-files]`. */
export function start(root) {
  const uploads = new Uploads("", () => refreshPane());
  const pane = () => document.getElementById("pane");
  let undo = () => {};
  let told = "";

  const socket = new Socket({
    address: () => socketUrl(root.dataset.files),
    message: ({ changed }) => changed && follow(changed),
    state: (name) => {
      showLive(root, name === "open");
      if (name === "open") tell(true);
    },
  });

  function tell(again = false) {
    const folders = [pane()?.dataset.watched, ...[...root.querySelectorAll("#tree ul[data-folder]")].filter(isShown).map((list) => list.dataset.folder)];
    const watch = [...new Set(folders.filter(Boolean))].slice(0, MAX_WATCHED);
    if (!again && told === watch.join("\0")) return;
    if (socket.send({ watch })) told = watch.join("\0");
  }

  function follow(changed) {
    for (const list of root.querySelectorAll("#tree ul[data-folder]")) {
      if (list.dataset.folder in changed) refreshFolder(root, list).then(() => tell());
    }
    const { watched, path } = pane()?.dataset ?? {};
    const names = changed[watched];
    if (names && (watched === path || names.includes(path.split("/").pop()))) refreshPane();
  }

  function settled() {
    undo();
    const here = pane();
    if (!here) return;
    markCurrent(root, here.dataset.path);
    const { uploads: address } = here.dataset;
    if (address) {
      uploads.address = address;
      undo = acceptFiles(here, uploads);
    } else undo = () => {};
    tell();
  }

  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-upload]") || !uploads.address) return;
    uploads.add([...event.target.files].map((file) => ({ file, path: file.name })));
    event.target.value = "";
    event.target.closest("details").open = false;
  });
  document.addEventListener("htmx:afterSettle", settled);
  root.addEventListener("toggle", () => tell(), true);
  settled();
}

const isShown = (element) => element.offsetParent !== null;

function showLive(root, isLive) {
  const mark = root.querySelector("[data-files-live]");
  if (!mark) return;
  mark.dataset.state = isLive ? "running" : "unreachable";
  mark.title = mark.firstElementChild.textContent = isLive ? "live" : "live updates paused";
}

function markCurrent(root, path) {
  for (const link of root.querySelectorAll("#tree a")) {
    const isHere = decodeURIComponent(link.pathname).endsWith(`/files${path}`);
    if (isHere) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** Draw the pane anew, unless the person is in the middle of something there. */
async function refreshPane() {
  const pane = document.getElementById("pane");
  if (!pane || "quiet" in pane.dataset) return;
  if (pane.querySelector("details[open]") || pane.contains(document.activeElement) && document.activeElement.matches("input, textarea")) return;
  const { scrollTop } = pane;
  const code = pane.querySelector(".code");
  const at = [code?.scrollTop ?? 0, code?.scrollLeft ?? 0];
  await htmx.ajax("GET", location.href, { target: "#pane", swap: "outerHTML" });
  const fresh = document.getElementById("pane");
  if (!fresh) return;
  fresh.scrollTop = scrollTop;
  fresh.querySelector(".code")?.scrollTo(at[1], at[0]);
}

/** Draw a folder of the tree anew; folders in it that are open stay as they are. */
async function refreshFolder(root, list) {
  const query = new URLSearchParams({ path: list.dataset.folder });
  const answer = await fetch(`${root.dataset.tree}?${query}`, { headers: { "HX-Request": "true" } });
  if (!answer.ok || !list.isConnected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("ul");
  if (!fresh) return;
  const open = new Map([...list.querySelectorAll(":scope > li > details[open]")].map((one) => [one.dataset.path, one]));
  const isNew = [];
  for (const details of fresh.querySelectorAll("details")) {
    const old = open.get(details.dataset.path);
    if (old) details.replaceWith(old);
    else isNew.push(details);
  }
  list.replaceWith(fresh);
  for (const details of isNew) htmx.process(details);
  for (const link of fresh.querySelectorAll(":scope > li > a")) htmx.process(link);
  markCurrent(root, document.getElementById("pane")?.dataset.path ?? "");
}
