/**
 * Keys of "Find or run": Ctrl+K or Command+K opens it, arrows walk the answers,
 * Enter in the field takes the first one. What it lists comes from the server.
 */

const FIELD = "#find";

/** Listen on the document. */
export function startPalette(doc = document) {
  doc.addEventListener("keydown", (event) => {
    if (opens(event)) open(event, doc);
    else if (event.target.closest?.("#dialog, .palette-page")) walk(event, doc);
  });
}

/** A terminal keeps Ctrl+K for its shell; Command+K is free everywhere. */
function opens({ key, ctrlKey, metaKey, target }) {
  if (key.toLowerCase() !== "k") return false;
  return metaKey || (ctrlKey && !target.closest?.(".terminal"));
}

function open(event, doc) {
  const link = doc.querySelector("a.rail-find");
  if (!link) return;
  event.preventDefault();
  link.click();
}

function walk(event, doc) {
  const field = doc.querySelector(FIELD);
  if (!field) return;
  const hits = [...doc.querySelectorAll("#found .hit")];
  if (event.key === "Enter" && event.target === field && !event.isComposing) {
    event.preventDefault();
    hits[0]?.click();
    return;
  }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const stops = [field, ...hits];
  const at = stops.indexOf(doc.activeElement);
  stops[(at + step + stops.length) % stops.length].focus();
}
