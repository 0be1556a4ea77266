/** Spans of time are spelled as the server spells them. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { spell } from "../../static/js/app.js";

const SPANS = [
  [-5, "0 s"],
  [0, "0 s"],
  [59.9, "59 s"],
  [60, "1 min"],
  [2465, "41 min"],
  [3600, "1 h"],
  [11520, "3 h 12 min"],
  [86400, "1 d"],
  [93600, "1 d 2 h"],
];

for (const [seconds, text] of SPANS) {
  test(`${seconds} seconds are ${text}`, () => assert.equal(spell(seconds), text));
}
