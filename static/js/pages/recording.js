/** Plays the recording of the page. */

import { Terminal } from "@xterm/xterm";
import { clock, parse, Player } from "../cast.js";
import { guard } from "../guard.js";
import { colours, FAMILY } from "../look.js";

const FONT_SIZE = 13;
const STEP_S = 5;
const LARGEST = 500;

async function start(view) {
  const status = view.querySelector("[data-player-time]");
  const answer = await fetch(view.dataset.cast);
  if (!answer.ok) {
    status.textContent = "cannot be loaded: reload the page";
    return;
  }
  const cast = parse(await answer.text());
  const element = view.querySelector("[data-player-screen]");
  const terminal = new Terminal({
    disableStdin: true,
    fontFamily: FAMILY,
    fontSize: FONT_SIZE,
    theme: colours(element),
    minimumContrastRatio: 4.5,
    linkHandler: { activate() {} },
    cols: cast.width,
    rows: cast.height,
    allowProposedApi: true,
  });
  guard(terminal);
  terminal.open(element);
  join(view, terminal, cast);
}

function join(view, terminal, cast) {
  const [toggle, seek, speed] = ["toggle", "seek", "speed"].map((name) => view.querySelector(`[data-player-${name}]`));
  const screen = {
    write: (text) => terminal.write(text),
    resize: (cols, rows) => terminal.resize(Math.min(cols, LARGEST), Math.min(rows, LARGEST)),
    reset: () => terminal.reset(),
    moved: () => show(),
  };
  const player = new Player(cast, screen);
  const time = view.querySelector("[data-player-time]");
  function show() {
    seek.value = player.at;
    seek.setAttribute("aria-valuetext", clock(player.at));
    time.textContent = `${clock(player.at)} / ${clock(cast.length)}`;
    toggle.setAttribute("aria-pressed", String(player.isPlaying));
    toggle.querySelector("span").textContent = player.isPlaying ? "Pause" : "Play";
  }
  seek.max = cast.length;
  seek.addEventListener("input", () => player.seek(Number(seek.value)));
  speed.addEventListener("change", () => (player.speed = Number(speed.value)));
  toggle.addEventListener("click", () => player.toggle());
  view.addEventListener("keydown", (event) => {
    if (event.target.matches("select, button, input")) return;
    const steps = { ArrowLeft: -STEP_S, ArrowRight: STEP_S };
    if (event.key === " ") player.toggle();
    else if (steps[event.key]) player.seek(player.at + steps[event.key]);
    else return;
    event.preventDefault();
  });
  let before = performance.now();
  (function tick(now = before) {
    player.advance((now - before) / 1000);
    before = now;
    requestAnimationFrame(tick);
  })();
  show();
  player.toggle();
}

for (const view of document.querySelectorAll("[data-cast]")) start(view);
