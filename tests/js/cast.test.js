import assert from "node:assert/strict";
import { test } from "node:test";

import { clock, parse, Player } from "../../static/js/cast.js";

const FILE = [
  '{"version": 2, "width": 80, "height": 24}',
  '[0.5, "o", "one "]',
  '[1.0, "r", "100x30"]',
  '[61.0, "o", "two "]',
  '[61.5, "o", "three"]',
  "",
].join("\n");

function screen() {
  const seen = [];
  return {
    seen,
    write: (text) => seen.push(text),
    resize: (cols, rows) => seen.push([cols, rows]),
    reset: () => seen.splice(0),
    moved() {},
  };
}

test("a long pause is cut short", () => {
  const cast = parse(FILE);
  assert.deepEqual(
    cast.events.map(({ at }) => at),
    [0.5, 1, 3, 3.5],
  );
  assert.equal(cast.length, 3.5);
});

test("what is due is shown in order, once", () => {
  const shown = screen();
  const player = new Player(parse(FILE), shown);
  player.toggle();
  player.advance(0.4);
  assert.deepEqual(shown.seen, []);
  player.advance(0.7);
  assert.deepEqual(shown.seen, ["one ", [100, 30]]);
  player.speed = 8;
  player.advance(1);
  assert.deepEqual(shown.seen, ["one ", [100, 30], "two three"]);
  assert.equal(player.isPlaying, false);
});

test("going back draws everything before it again", () => {
  const shown = screen();
  const player = new Player(parse(FILE), shown);
  player.seek(3.5);
  player.seek(3);
  assert.deepEqual(shown.seen, [[80, 24], "one ", [100, 30], "two "]);
});

test("played again from its end it begins anew", () => {
  const player = new Player(parse(FILE), screen());
  player.seek(99);
  player.toggle();
  assert.equal(player.at, 0);
  assert.ok(player.isPlaying);
});

test("a clock shows minutes and seconds", () => {
  assert.equal(clock(61.9), "1:01");
});
