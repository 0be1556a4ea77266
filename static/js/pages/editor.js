/** The editor of a file: Tab indents, Ctrl+S saves, and leaving asks first. */

const INDENT = "  ";

function start(area) {
  const form = area.form;
  const before = area.value;
  let isSaving = false;
  let escaped = false; // after Escape, Tab leaves the field as it does elsewhere
  area.addEventListener("keydown", (event) => {
    if (event.key === "Tab" && !event.shiftKey && !escaped) {
      event.preventDefault();
      area.setRangeText(INDENT, area.selectionStart, area.selectionEnd, "end");
    }
    escaped = event.key === "Escape";
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "s" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", () => (isSaving = true));
  addEventListener("beforeunload", (event) => {
    if (!isSaving && area.value !== before) event.preventDefault();
  });
  area.focus();
  area.setSelectionRange(0, 0);
}

for (const area of document.querySelectorAll("[data-editor]")) start(area);
