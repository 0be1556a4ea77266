/**
 * News of one sandbox: its state, its ports. Polls when the socket is lost.
 */

import { Socket, socketUrl } from "./socket.js";
import { openPort } from "./terminal.js";

/** Follow the sandbox of an element with `data-socket`; returns what to dispose. */
export function follow(element) {
  const path = element.dataset.socket;
  const view = element.closest(".terminal-view") ?? document;
  let known;
  return new Socket({
    address: () => socketUrl(path),
    message: (news) => {
      if (news.ports) showPorts(view.querySelector("[data-ports]"), news.ports);
      if (!news.state) return;
      // The page around the terminal depends on the state: let the server draw it.
      if (known && known !== news.state) location.reload();
      known = news.state;
    },
    state: () => {},
  });
}

function showPorts(strip, ports) {
  if (!strip) return;
  strip.hidden = ports.length === 0;
  strip.replaceChildren(
    ...ports.map(({ number, process }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "button tight outlined";
      button.textContent = process ? `${number} ${process}` : String(number);
      button.setAttribute("aria-label", `Open the preview of port ${number}`);
      button.addEventListener("click", () => openPort(strip.dataset.open, number));
      return button;
    }),
  );
}
