/**
 * What keys send, and what a terminal says that nobody typed.
 */

const PLAIN = { esc: "\x1b", tab: "\t", pipe: "|" };
const ARROWS = { up: "A", down: "B", right: "C", left: "D" };
// Reports of cursor, device, mode and focus; answers about colours and settings.
const REPLY = /^\x1b(?:\[[?>=]?[\d;]*\$?[cnRy]|\[[IO]|[\]P][^\x07\x1b]*(?:\x07|\x1b\\))$/;

/** What a key of the key bar sends; programs may ask for other arrows. */
export function keyText(name, applicationCursorKeys = false) {
  if (name in ARROWS) return (applicationCursorKeys ? "\x1bO" : "\x1b[") + ARROWS[name];
  return PLAIN[name] ?? name;
}

/** One typed character as it is with ctrl or alt held; longer text as it is. */
export function modified(text, names) {
  if (text.length !== 1) return text;
  const control = names.includes("ctrl") ? String.fromCharCode(text.toUpperCase().charCodeAt(0) & 31) : text;
  return names.includes("alt") ? `\x1b${control}` : control;
}

/** Whether the terminal itself says this, in answer to a program. */
export function isReply(text) {
  return REPLY.test(text);
}
