/**
 * Keeps a hostile sequence from freezing the page.
 *
 * xterm.js repeats these as often as they ask: a 13-byte sequence would stop the
 * tab for seconds, on every replay again. A count no screen has use for is eaten.
 */

export const MAX_COUNT = 4096;
const REPEATING = ["@", "A", "B", "C", "D", "E", "F", "I", "L", "M", "P", "S", "T", "X", "Z", "b"];

/** True when a sequence asks for more than a screen could need. */
export function isExcessive(params) {
  return params.some((p) => (Array.isArray(p) ? p.some((q) => q > MAX_COUNT) : p > MAX_COUNT));
}

/** Guard a terminal; returns what to dispose. */
export function guard(terminal) {
  const handlers = REPEATING.map((final) =>
    terminal.parser.registerCsiHandler({ final }, (params) => isExcessive(params)),
  );
  // The clipboard is the person's: a program may neither read nor replace it.
  handlers.push(terminal.parser.registerOscHandler(52, () => true));
  return handlers;
}
