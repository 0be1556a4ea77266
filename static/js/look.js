/** How terminals look, live or recorded. */

export const FAMILY = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace";

/** The sixteen colours and the rest, as the style sheet has them now. */
export function colours(element) {
  const style = getComputedStyle(element);
  const value = (name) => style.getPropertyValue(`--term-${name}`).trim();
  const names = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
  const bright = names.map((n) => `bright${n[0].toUpperCase()}${n.slice(1)}`);
  const theme = Object.fromEntries([...names, ...bright].map((n, i) => [n, value(i)]));
  return {
    ...theme,
    background: value("bg"),
    foreground: value("text"),
    cursor: value("cursor"),
    selectionBackground: value("select"),
  };
}
