/** Files: the tree, the pane, and the pages of a PDF, whose reader comes on demand. */

import { start } from "../files.js";

const root = document.querySelector("[data-files]");
if (root) start(root);

async function showPdf() {
  const place = document.querySelector("[data-pdf]:not([data-begun])");
  if (!place) return;
  place.dataset.begun = "";
  const { draw } = await import("../pdf.js");
  draw(place);
}

document.addEventListener("htmx:afterSettle", showPdf);
showPdf();
