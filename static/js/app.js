/**
 * The few things every page does beside htmx: theme, dialogs, menus, clocks.
 * Each works on what the page says in `data-` attributes, also on fragments that
 * come later, and no page needs any of it to be usable.
 */

const YEAR_S = 365 * 86400;
const LOW_S = 600;
const ENDING_S = 120;

/** Begin; called once for a page. */
export function start(doc = document) {
  doc.addEventListener("click", (event) => clicked(event, doc));
  doc.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit-on-change]")) event.target.form.requestSubmit();
    if (event.target.matches("[data-check-all]")) checkAll(event.target);
  });
  // What is chosen must not be drawn anew under the person's hand.
  doc.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.matches("[data-keeps-checked]") && event.target.querySelector(":checked, details[open]")) event.preventDefault();
  });
  doc.addEventListener("submit", submitted);
  doc.addEventListener("keydown", (event) => pressed(event, doc));
  doc.addEventListener("htmx:afterSwap", (event) => swapped(event, doc));
  window.addEventListener("pageshow", (event) => event.persisted && freshKeys(doc));
  for (const form of doc.querySelectorAll("form[data-autosubmit]")) form.requestSubmit();
  setInterval(() => tick(doc), 1000);
}

function checkAll(box) {
  for (const one of box.closest("table").querySelectorAll("input[name=code]")) one.checked = box.checked;
}

function clicked(event, doc) {
  const button = event.target.closest("button, a, summary");
  closeMenus(doc, event.target);
  if (event.target.matches("dialog[open]")) event.target.close(); // its backdrop
  if (!button) return;
  if (button.matches("[data-switch-theme]")) switchTheme(doc);
  if (button.matches("[data-dismiss]")) button.closest(".banner, .toast")?.remove();
  if (button.matches("[data-close]")) close(event, button);
  if (button.matches("[data-copy]")) copy(button);
  if (button.matches("[data-fill]")) fill(button, doc);
}

/** The other theme than the one seen, kept in a cookie so that pages come in it. */
function switchTheme(doc) {
  const root = doc.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const next = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  root.dataset.theme = next;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  doc.cookie = `theme=${next}; Path=/; Max-Age=${YEAR_S}; SameSite=Lax${secure}`;
}

/** A menu closes when something else is clicked. */
function closeMenus(doc, target) {
  for (const menu of doc.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(target)) menu.open = false;
  }
}

function close(event, button) {
  const dialog = button.closest("dialog");
  if (!dialog) return;
  event.preventDefault();
  dialog.close();
}

async function copy(button) {
  await navigator.clipboard.writeText(button.dataset.copy);
  const label = button.getAttribute("aria-label");
  button.setAttribute("aria-label", "Copied");
  button.dataset.done = "";
  setTimeout(() => {
    button.setAttribute("aria-label", label);
    delete button.dataset.done;
  }, 1500);
}

/** Put an example's text into its field. */
function fill(button, doc) {
  const field = doc.getElementById(button.dataset.for);
  field.value = button.dataset.fill;
  field.focus();
}

/** A form in flight is not sent again; the browser comes back to a usable one. */
function submitted(event) {
  const form = event.target;
  if (form.target || form.matches("[data-quiet]")) return;
  if (form.dataset.busy) event.preventDefault();
  form.dataset.busy = "yes";
  setTimeout(() => delete form.dataset.busy, 3000);
}

function pressed(event, doc) {
  const { key, target } = event;
  if (key === "Escape") {
    const menu = target.closest?.("details.menu[open]");
    if (!menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  }
  if (key === "Enter" && !event.shiftKey && !event.isComposing && target.matches("[data-enter]")) {
    event.preventDefault();
    target.form.requestSubmit();
  }
  const typing = target.closest?.("input, textarea, select, [data-terminal], [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "/") focusSearch(event, doc);
}

function focusSearch(event, doc) {
  const field = doc.querySelector("input[type=search]");
  if (!field) return;
  event.preventDefault();
  field.focus();
}

/** What htmx put into the dialog opens it; what is empty closes it. */
function swapped(event, doc) {
  if (event.target.id !== "dialog") return;
  const dialog = doc.getElementById("dialog");
  if (dialog.childElementCount && !dialog.open) dialog.showModal();
  if (!dialog.childElementCount) dialog.close();
}

/** A page that the browser kept must not ask again with the key it used. */
function freshKeys(doc) {
  for (const field of doc.querySelectorAll("input[type=hidden][name=key]")) {
    field.value = crypto.randomUUID().replaceAll("-", "");
  }
  for (const form of doc.querySelectorAll("form[data-busy]")) delete form.dataset.busy;
}

function tick(doc) {
  const now = Date.now();
  for (const clock of doc.querySelectorAll("[data-ends]")) countDown(clock, now);
  for (const clock of doc.querySelectorAll("[data-since]")) {
    clock.textContent = spell((now - Date.parse(clock.dataset.since)) / 1000);
  }
}

function countDown(clock, now) {
  const left_s = Math.max(0, (Date.parse(clock.dataset.ends) - now) / 1000);
  clock.textContent = spell(left_s);
  const frame = clock.closest("[data-level]");
  if (frame) frame.dataset.level = left_s < LOW_S ? "low" : "";
  const head = clock.closest(".sandbox-head");
  const banner = head?.parentElement.querySelector("[data-ending]");
  if (banner) banner.hidden = left_s >= ENDING_S;
  const fuse = head?.querySelector(".fuse");
  if (!fuse) return;
  fuse.dataset.level = left_s < LOW_S ? "low" : "";
  const share = Math.min(100, (100 * left_s) / Number(clock.dataset.whole));
  fuse.firstElementChild.setAttribute("width", `${share.toFixed(2)}%`);
}

/** A span of time as the server spells it: at most two units. */
export function spell(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  const [unit, size, small, part] =
    whole < 86400 ? ["h", 3600, "min", 60] : ["d", 86400, "h", 3600];
  const rest = Math.floor((whole % size) / part);
  const first = `${Math.floor(whole / size)} ${unit}`;
  return rest ? `${first} ${rest} ${small}` : first;
}
