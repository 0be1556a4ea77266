/** The pane on the page of ports that shows a preview. */

import { token } from "../token.js";

const pane = document.getElementById("pane");
const frame = pane?.querySelector("iframe");
let shown;

/** Ask for an address that works once, and show it. */
async function show({ open, showPane }) {
  shown = { open, showPane };
  pane.hidden = false;
  pane.querySelector("[data-pane-port]").textContent = `:${showPane}`;
  const headers = { "X-CSRFToken": token(), Accept: "application/json" };
  const answer = await fetch(open, { method: "POST", headers });
  if (answer.ok) frame.src = (await answer.json()).url;
  else location.reload(); // what may be done is not what it was
}

function close() {
  pane.hidden = true;
  frame.src = "about:blank";
}

if (pane) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-show-pane]");
    if (button) show(button.dataset);
  });
  pane.querySelector("[data-pane-reload]").addEventListener("click", () => show(shown));
  pane.querySelector("[data-pane-close]").addEventListener("click", close);
  pane.addEventListener("change", (event) => {
    if (event.target.name === "pane-width") frame.style.maxWidth = event.target.value || "none";
  });
}
