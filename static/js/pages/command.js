/** Follows the output of the page's command. */

import { Socket, socketUrl } from "../socket.js";

const NEAR_PX = 24;
const WORDS = { lost: "connection lost, trying again", open: "" };

function follow(output) {
  const status = document.querySelector("[data-command-status]");
  let after = Number(output.dataset.after);
  const append = ({ stream, d }) => {
    const isAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < NEAR_PX;
    let piece = output.lastElementChild;
    if (piece?.className !== stream) {
      piece = document.createElement("span");
      piece.className = stream;
      output.append(piece);
    }
    piece.append(d);
    if (isAtEnd) output.scrollTop = output.scrollHeight;
  };
  new Socket({
    address: () => socketUrl(output.dataset.commandUrl, { after }),
    message: (message) => {
      if (message.end) {
        status.textContent = output.childElementCount ? "" : "It printed nothing.";
        document.body.dispatchEvent(new Event("ended"));
      } else if (message.at >= after) {
        // A piece that came before a break is not drawn twice.
        append(message);
        after = message.at + [...message.d].length;
      }
    },
    state: (name) => {
      if (name in WORDS) status.textContent = WORDS[name];
    },
  });
  output.scrollTop = output.scrollHeight;
}

for (const output of document.querySelectorAll("[data-command-url]")) follow(output);
