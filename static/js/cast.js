/**
 * A recording: an asciicast (version 2) as it is played, with long pauses cut short.
 *
 * Times are seconds of playing, which pass faster than they did where nothing
 * happened for longer than PAUSE_S.
 */

const PAUSE_S = 2;

/** The header and events `{ at, kind, text }` of a file's text; broken lines end it. */
export function parse(text) {
  const [first, ...rest] = text.split("\n");
  const header = JSON.parse(first);
  const events = [];
  let at = 0;
  let before = 0;
  for (const line of rest) {
    if (!line) continue;
    const [seconds, kind, data] = JSON.parse(line);
    at += Math.max(0, Math.min(seconds - before, PAUSE_S));
    before = seconds;
    events.push({ at, kind, text: data });
  }
  return { width: header.width, height: header.height, events, length: at };
}

/** Plays events by a clock: `write(text)`, `resize(cols, rows)`, `reset()`, `moved()`. */
export class Player {
  constructor(cast, screen) {
    Object.assign(this, { cast, screen, at: 0, next: 0, speed: 1, isPlaying: false });
  }

  /** Let so many seconds of the clock pass. */
  advance(seconds) {
    if (!this.isPlaying) return;
    this.at = Math.min(this.cast.length, this.at + seconds * this.speed);
    this.showUntil(this.at);
    if (this.at >= this.cast.length) this.isPlaying = false;
    this.screen.moved();
  }

  /** Go to a time; back means to draw everything before it again. */
  seek(at) {
    const wanted = Math.max(0, Math.min(this.cast.length, at));
    if (wanted < this.at) {
      this.screen.reset();
      this.screen.resize(this.cast.width, this.cast.height);
      this.next = 0;
    }
    this.at = wanted;
    this.showUntil(wanted);
    this.screen.moved();
  }

  /** Play, from the start if it is at its end, or pause. */
  toggle() {
    if (!this.isPlaying && this.at >= this.cast.length) this.seek(0);
    this.isPlaying = !this.isPlaying;
    this.screen.moved();
  }

  showUntil(at) {
    const { events } = this.cast;
    let text = "";
    for (; this.next < events.length && events[this.next].at <= at; this.next += 1) {
      const { kind, text: data } = events[this.next];
      if (kind === "o") text += data;
      if (kind !== "r") continue;
      this.screen.write(text);
      text = "";
      this.screen.resize(...data.split("x").map(Number));
    }
    if (text) this.screen.write(text);
  }
}

/** Minutes and seconds. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
