import assert from "node:assert/strict";
import { test } from "node:test";

import { guard, isExcessive, MAX_COUNT } from "../../static/js/guard.js";
import { isReply, keyText, modified } from "../../static/js/keys.js";
import { ACK_BYTES, Progress } from "../../static/js/progress.js";
import { delay, GONE, Socket } from "../../static/js/socket.js";
import { Unsent } from "../../static/js/unsent.js";

class FakeSocket {
  readyState = 0;
  sent = [];
  send(data) {
    this.sent.push(data);
  }
  close() {}
}

function connected() {
  const made = [];
  const states = [];
  const messages = [];
  const socket = new Socket({
    address: () => `ws://host/?try=${made.length}`,
    message: (data) => messages.push(data),
    state: (...state) => states.push(state),
    make: (url) => {
      const fake = Object.assign(new FakeSocket(), { url });
      made.push(fake);
      return fake;
    },
  });
  return { socket, made, states, messages };
}

test("tries come later and later, up to ten seconds", () => {
  assert.equal(delay(0, 0.5), 250);
  assert.equal(delay(2, 0.5), 1000);
  assert.equal(delay(50, 0.5), 10_000);
});

test("a lost socket is tried again with the address of then", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { made, states, socket } = connected();
  made[0].onclose({ code: 1006 });
  t.mock.timers.tick(20_000);
  assert.deepEqual(states, [["lost", 1006]]);
  assert.equal(made[1].url, "ws://host/?try=1");
  socket.dispose();
});

test("a final close code ends it", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { made, states } = connected();
  made[0].onclose({ code: GONE });
  t.mock.timers.tick(60_000);
  assert.equal(made.length, 1);
  assert.deepEqual(states, [["closed", GONE]]);
});

test("nothing is sent without a connection", () => {
  const { made, socket } = connected();
  assert.equal(socket.send("a"), false);
  made[0].readyState = 1;
  assert.equal(socket.send({ ack: 1 }), true);
  assert.deepEqual(made[0].sent, ['{"ack":1}']);
  socket.dispose();
});

test("bytes arrive as bytes and text as what it says", () => {
  const { made, messages, socket } = connected();
  made[0].onmessage({ data: new Uint8Array([1, 2]).buffer });
  made[0].onmessage({ data: '{"exit":0}' });
  assert.deepEqual(messages, [new Uint8Array([1, 2]), { exit: 0 }]);
  socket.dispose();
});

test("a count that no screen needs is excessive", () => {
  assert.equal(isExcessive([MAX_COUNT]), false);
  assert.equal(isExcessive([2147483647]), true);
  assert.equal(isExcessive([1, [MAX_COUNT + 1]]), true);
});

const bytes = (count) => new Uint8Array(count);

test("what came is counted, and asked for from there", () => {
  const progress = new Progress();
  assert.deepEqual(progress.query, {});
  progress.begin({ start: 100, epoch: "a", reset: true, live: 100 });
  progress.take(bytes(50));
  assert.deepEqual(progress.query, { from: 150, epoch: "a" });
});

test("a flood is acknowledged as it is drawn, each 32 KiB and at its end", () => {
  const progress = new Progress();
  progress.begin({ start: 0, epoch: "a", reset: true, live: 0 });
  const parts = Array.from({ length: 5 }, () => progress.take(bytes(ACK_BYTES / 2))[0]);
  const acks = parts.map((part) => progress.draw(part));
  const half = ACK_BYTES / 2;
  assert.deepEqual(acks, [null, 2 * half, null, 4 * half, 5 * half]);
});

test("what was drawn before a new start is not acknowledged", () => {
  const progress = new Progress();
  progress.begin({ start: 0, epoch: "a", reset: true, live: 0 });
  const [part] = progress.take(bytes(10));
  progress.begin({ start: 0, epoch: "b", reset: true, live: 0 });
  assert.equal(progress.draw(part), null);
});

test("a replay ends at the byte that is new to everybody", () => {
  const progress = new Progress();
  progress.begin({ start: 0, epoch: "a", reset: true, live: 30 });
  const parts = progress.take(bytes(50));
  assert.deepEqual(parts.map(({ piece }) => piece.length), [30, 20]);
  assert.equal(progress.isReplay, true);
  progress.draw(parts[0]);
  assert.equal(progress.isReplay, false);
});

test("what was missed in a break is no replay", () => {
  const progress = new Progress();
  progress.begin({ start: 10, epoch: "a", reset: false, live: 30 });
  assert.equal(progress.isReplay, false);
});

test("answers of the terminal are told from keys", () => {
  const replies = ["\x1b[?1;2c", "\x1b[>0;276;0c", "\x1b[24;80R", "\x1b[0n", "\x1b[?2026;2$y", "\x1b[I"];
  replies.push("\x1b]11;rgb:1b1b/1d1d/2020\x1b\\", "\x1bP1$r0m\x1b\\");
  for (const reply of replies) assert.ok(isReply(reply), JSON.stringify(reply));
  for (const key of ["a", "\r", "\x1b", "\x1b[A", "\x1bOA", "\x1b[5~", "\x1b[200~ls\x1b[201~", "\x1b]"]) {
    assert.ok(!isReply(key), JSON.stringify(key));
  }
});

test("the key bar sends what a keyboard would", () => {
  assert.equal(keyText("up"), "\x1b[A");
  assert.equal(keyText("up", true), "\x1bOA");
  assert.equal(keyText("pipe"), "|");
  assert.equal(modified("c", ["ctrl"]), "\x03");
  assert.equal(modified("x", ["alt"]), "\x1bx");
  assert.equal(modified("\x1b[A", ["ctrl"]), "\x1b[A");
});

test("a guarded terminal eats what would freeze the page, and the clipboard", () => {
  const csi = {};
  const osc = {};
  guard({
    parser: {
      registerCsiHandler: ({ final }, handler) => (csi[final] = handler),
      registerOscHandler: (number, handler) => (osc[number] = handler),
    },
  });
  for (const final of "bLIST") assert.equal(csi[final]([2147483647]), true);
  assert.equal(csi.b([80]), false);
  assert.equal(osc[52]("c;?"), true);
});

test("what is typed before the shell is there is kept, in order", () => {
  const unsent = new Unsent();
  assert.ok(unsent.add(Uint8Array.of(1), 0));
  assert.ok(unsent.add(Uint8Array.of(2), 9_000));
  assert.deepEqual(unsent.take(9_500), [Uint8Array.of(1), Uint8Array.of(2)]);
  assert.deepEqual(unsent.take(9_500), []);
});

test("what was typed too long ago, or is too much, is dropped", () => {
  const unsent = new Unsent();
  unsent.add(Uint8Array.of(1), 0);
  assert.deepEqual(unsent.take(10_001), []);
  unsent.add(Uint8Array.of(1), 20_000);
  assert.ok(!unsent.add(Uint8Array.of(2), 30_001));
  assert.ok(!unsent.add(new Uint8Array(5000), 40_000));
});
