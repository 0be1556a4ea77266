/** Files dropped on an element are sent to an address, with their progress told. */

import { token } from "./token.js";

const CODES = { 403: "you may not put files here", 413: "too large" };

/** The sentence for an answer that is not a success. */
function refusal(request) {
  try {
    return JSON.parse(request.responseText).error ?? request.statusText;
  } catch {
    return CODES[request.status] ?? "not sent: the connection was lost";
  }
}

/** Follow drops on `element`; `say(text, state)` hears how it goes. Returns undo. */
export function acceptFiles(element, address, say) {
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  const over = (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    element.dataset.dropping = "";
  };
  const out = () => delete element.dataset.dropping;
  const drop = (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    out();
    send(event.dataTransfer.files, address, say);
  };
  const listeners = { dragover: over, dragleave: out, drop };
  for (const [name, listener] of Object.entries(listeners)) element.addEventListener(name, listener);
  return () => {
    for (const [name, listener] of Object.entries(listeners)) element.removeEventListener(name, listener);
  };
}

function send(files, address, say) {
  const form = new FormData();
  for (const file of files) form.append("files", file);
  const words = files.length === 1 ? files[0].name : `${files.length} files`;
  const request = new XMLHttpRequest();
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    say(`sending ${words}: ${Math.floor((100 * loaded) / total)} %`, "working");
  });
  request.addEventListener("loadend", () => {
    if (request.status !== 200) say(`${words}: ${refusal(request)}`, "error");
    else say(`${words} put into ${JSON.parse(request.responseText).folder}`, "running");
  });
  request.open("POST", address);
  request.setRequestHeader("X-CSRFToken", token());
  request.setRequestHeader("Accept", "application/json");
  request.send(form);
}
