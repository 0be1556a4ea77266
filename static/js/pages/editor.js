/** The page of an editor: Ctrl+S saves, and leaving with changes asks first. */

import { edit } from "../editor.js";
import "./files.js";

function begin(area) {
  const form = area.form;
  const before = area.value;
  let isSaving = false;
  const isChanged = () => !isSaving && area.value !== before;
  const mark = () => form.querySelector("[data-unsaved]")?.toggleAttribute("data-changed", isChanged());
  edit(area, area.dataset.editor, mark);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "s" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", () => (isSaving = true));
  addEventListener("beforeunload", (event) => {
    if (isChanged()) event.preventDefault();
  });
  // A click in the tree takes the place of the editor, without leaving the page.
  document.addEventListener("htmx:confirm", (event) => {
    if (event.detail.target?.id !== "pane" || !form.isConnected || !isChanged()) return;
    if (!confirm("Leave without saving?")) event.preventDefault();
    else isSaving = true;
  });
}

for (const area of document.querySelectorAll("[data-editor]")) begin(area);
