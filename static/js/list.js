/**
 * Keeps the list of sandboxes as it is now: asked for when the socket says that
 * something changed, now and then for its clocks, and often while the socket is lost,
 * which the page says.
 */

import { Socket, socketUrl } from "./socket.js";

const CLOCKS_MS = 20_000;
const LOST_MS = 3_000;

/** Follow for an element `[data-list]` inside of which the table is drawn anew. */
export function startList(mark) {
  const refresh = () => {
    const table = document.getElementById("sandboxes");
    if (table && !document.hidden) htmx.trigger(table, "refresh");
  };
  let timer;
  const pace = (ms) => {
    clearInterval(timer);
    timer = setInterval(refresh, ms);
  };
  new Socket({
    address: () => socketUrl(mark.dataset.list),
    message: ({ changed }) => changed && refresh(),
    state: (name) => {
      const isLive = name === "open";
      mark.dataset.state = isLive ? "running" : "unreachable";
      mark.firstElementChild.textContent = isLive ? "live" : "live updates paused, asking every 3 s";
      pace(isLive ? CLOCKS_MS : LOST_MS);
    },
  });
  document.addEventListener("visibilitychange", refresh);
}
