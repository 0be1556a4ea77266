/**
 * Draws an agent's page from the changes that its socket brings.
 *
 * A change either puts an element (replaces it by id, or appends it to another)
 * or adds text at an offset. An offset that is not the element's length means
 * that the text is there already, or that a whole is on its way: it is left out.
 */

/** Apply changes in order. */
export function draw(changes) {
  for (const change of changes) {
    if (change.op === "put") put(change);
    else addText(change);
  }
}

function put({ id, into, html }) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const fresh = template.content.firstElementChild;
  for (const form of fresh.querySelectorAll("form")) addToken(form);
  const old = document.getElementById(id);
  if (old) {
    keep(old, fresh);
    old.replaceWith(fresh);
  } else {
    document.getElementById(into)?.append(fresh);
  }
  window.htmx?.process(fresh);
  // A terminal that came along joins its shell as if htmx had brought it.
  if (fresh.querySelector("[data-terminal-url]")) {
    document.dispatchEvent(new Event("htmx:afterSettle"));
  }
}

/** What the socket brings was drawn without a request, and so without its token. */
function addToken(form) {
  if (form.elements.csrfmiddlewaretoken) return;
  const field = Object.assign(document.createElement("input"), { type: "hidden" });
  Object.assign(field, { name: "csrfmiddlewaretoken", value: token() });
  form.append(field);
}

function token() {
  return document.querySelector("input[name=csrfmiddlewaretoken]")?.value ?? "";
}

const isLive = (card) => card.dataset.state === "executing";

/** Carry over what a person did to the old element: folded, typed, focused. */
function keep(old, fresh) {
  if (old.matches("details.call") && fresh.matches("details.call")) {
    // A card is open while its command runs, unless somebody decided otherwise.
    const turned = isLive(old) !== isLive(fresh);
    if (!turned || old.dataset.touched) fresh.open = old.open;
    if (old.dataset.touched) fresh.dataset.touched = "yes";
  }
  if (old.matches("details.todos, details.thought")) fresh.open = old.open;
  const menu = fresh.querySelector("details.menu");
  if (menu) menu.open = old.querySelector("details.menu")?.open ?? false;
  const typed = old.querySelector("input[name=note]");
  const field = fresh.querySelector("input[name=note]");
  if (typed && field) field.value = typed.value;
}

function addText({ id, at, n, d }) {
  const element = document.getElementById(id);
  if (!element || Number(element.dataset.length) !== at) return;
  const follows = element.scrollHeight - element.scrollTop - element.clientHeight < 8;
  element.append(d);
  element.dataset.length = at + n;
  if (follows) element.scrollTop = element.scrollHeight;
}

/** Remember which cards a person folded or unfolded himself. */
export function watchFolds(root) {
  root.addEventListener("click", (event) => {
    const summary = event.target.closest("details.call > summary");
    if (summary) summary.parentElement.dataset.touched = "yes";
  });
}

/**
 * Send the forms of the page without leaving it; the socket brings what changes.
 * `refuse(text)` shows why one was not accepted, and nothing when it was.
 */
export function sendQuietly(root, refuse) {
  root.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form[data-quiet]")) return;
    event.preventDefault();
    if (form.dataset.busy) return;
    form.dataset.busy = "yes";
    try {
      refuse(await send(form, event.submitter));
    } finally {
      delete form.dataset.busy;
    }
  });
}

/** Post a form; returns why it was refused, or "". */
async function send(form, submitter) {
  const body = new FormData(form, submitter);
  const headers = { "HX-Request": "true", "X-CSRFToken": token(), Accept: "application/json" };
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers });
    if (answer.ok) {
      form.reset();
      return "";
    }
    return (await reason(answer)) || `That was refused (${answer.status}). Reload the page.`;
  } catch {
    return "The server did not answer. What you typed is still here; send it again.";
  }
}

async function reason(answer) {
  if (!answer.headers.get("Content-Type")?.includes("json")) return "";
  const { error, detail } = await answer.json();
  return error || detail;
}

/** Enter sends, Shift+Enter makes a line; not while an input method composes. */
export function sendOnEnter(field) {
  field?.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    field.form.requestSubmit();
  });
}
