/** The page of an agent: follows its socket, sends its forms. */

import { draw, sendOnEnter, sendQuietly, watchFolds } from "../agent.js";
import { GONE, NOT_FOUND, SIGNED_OUT, Socket, socketUrl } from "../socket.js";

const root = document.querySelector("[data-agent]");
const status = document.querySelector("[data-agent-status]");
const refused = document.getElementById("refused");
let since = Number(root.dataset.seq);

const ENDS = {
  [SIGNED_OUT]: "You are signed out. Reload to sign in again.",
  [NOT_FOUND]: "You can no longer see this agent.",
  [GONE]: "This agent is gone.",
};

new Socket({
  address: () => socketUrl(root.dataset.url, { since }),
  message: ({ seq, changes }) => {
    draw(changes);
    since = seq;
    root.dataset.seq = seq;
  },
  state: (name, code) => {
    if (name === "open") status.textContent = "";
    else if (name === "lost") status.textContent = "Connection lost. Nothing is missed; trying again…";
    else status.textContent = ENDS[code] ?? "The connection was refused.";
  },
});

watchFolds(document);
sendOnEnter(document.getElementById("say"));
sendQuietly(document, (text) => {
  refused.textContent = text;
  refused.hidden = !text;
});
