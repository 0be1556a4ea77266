/** Joins every terminal on the page to its shell, also those that htmx brings. */

import { follow } from "../news.js";
import { Shell } from "../terminal.js";

const shells = new Map();

function sync() {
  for (const [element, parts] of shells) {
    if (element.isConnected) continue;
    for (const part of parts) part.dispose();
    shells.delete(element);
  }
  for (const element of document.querySelectorAll("[data-terminal-url]")) {
    if (shells.has(element)) continue;
    const parts = [new Shell(element)];
    if (element.dataset.socket) parts.push(follow(element));
    shells.set(element, parts);
  }
}

document.addEventListener("htmx:afterSettle", sync);
sync();
