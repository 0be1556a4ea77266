/** A PDF drawn page by page on canvases: none of it is ever a document of ours. */

import { GlobalWorkerOptions, getDocument } from "pdfjs-dist";

const MAX_PAGES = 200;
const MAX_SCALE = 2;

GlobalWorkerOptions.workerSrc = new URL("../pdf.worker.js", import.meta.url).href;

/** Draw the file of `[data-pdf]`; each page when it comes into view. */
export async function draw(place) {
  const status = place.querySelector("[data-pdf-status]");
  let file;
  try {
    file = await getDocument({ url: place.dataset.pdf, isEvalSupported: false, enableXfa: false }).promise;
  } catch (error) {
    status.textContent = `This PDF cannot be shown (${error.message}). Download it instead.`;
    return;
  }
  const count = Math.min(file.numPages, MAX_PAGES);
  status.textContent = count < file.numPages ? `The first ${count} of ${file.numPages} pages.` : `${count} page${count === 1 ? "" : "s"}`;
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        paint(file, target);
      }
    },
    { root: place, rootMargin: "600px" },
  );
  for (let number = 1; number <= count; number += 1) {
    const canvas = document.createElement("canvas");
    canvas.dataset.page = number;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Page ${number}`);
    canvas.width = 612;
    canvas.height = 792;
    place.append(canvas);
    seen.observe(canvas);
  }
}

async function paint(file, canvas) {
  const page = await file.getPage(Number(canvas.dataset.page));
  const scale = Math.min(MAX_SCALE, Math.max(1, devicePixelRatio)) * 1.3;
  const viewport = page.getViewport({ scale });
  canvas.width = viewport.width;
  canvas.height = viewport.height;
  await page.render({ canvas, viewport }).promise;
  canvas.dataset.drawn = "";
}
