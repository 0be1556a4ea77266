import assert from "node:assert/strict";
import { test } from "node:test";

import { isExcessive, MAX_COUNT } from "../../static/js/guard.js";
import { delay, GONE, Socket } from "../../static/js/socket.js";

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
