/**
 * News of one sandbox: its state, its end, its ports. While the socket is lost the
 * page is asked instead, now and then, and says so.
 */

import { Socket, socketUrl } from "./socket.js";
import { openPort } from "./port.js";

const POLL_MS = 5_000;

/** Follow the sandbox of an element with `data-socket`; returns what to dispose. */
export function follow(element) {
  const view = element.closest(".terminal-view") ?? document;
  const note = view.querySelector("[data-news-status]");
  let known;
  let polling;
  const poll = (isLost) => {
    if (note) note.hidden = !isLost;
    if (!isLost) polling = clearInterval(polling);
    else polling ??= setInterval(ask, POLL_MS);
  };
  const tell = () => socket.send({ visible: !document.hidden });
  const socket = new Socket({
    address: () => socketUrl(element.dataset.socket),
    message: (news) => {
      if (news.ports) showPorts(view.querySelector("[data-ports]"), news.ports);
      if (!news.state) return;
      showEnd(news.ends_at);
      // The page around the terminal depends on the state: let the server draw it.
      if (known && known !== news.state) location.reload();
      known = news.state;
    },
    state: (name) => {
      poll(name === "lost");
      if (name === "open") tell();
    },
  });
  document.addEventListener("visibilitychange", tell);
  return {
    dispose() {
      document.removeEventListener("visibilitychange", tell);
      poll(false);
      socket.dispose();
    },
  };
}

const shownState = (doc) => doc.querySelector(".sandbox-head .state")?.dataset.state;

/** Look at the page as it would be now, and take it if the state is another. */
async function ask() {
  try {
    const answer = await fetch(location.href, { headers: { "HX-Request": "true" } });
    const fresh = shownState(new DOMParser().parseFromString(await answer.text(), "text/html"));
    if (fresh && fresh !== shownState(document)) location.reload();
  } catch {
    // Still away: the next look is soon.
  }
}

function showEnd(endsAt) {
  const clock = document.querySelector(".sandbox-head [data-ends]");
  if (clock && endsAt) clock.dataset.ends = endsAt;
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
