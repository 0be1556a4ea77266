/**
 * What was typed while there was no connection: kept for a moment, in order.
 *
 * Whoever types before the shell is there, or through a short break, loses no
 * key; what is older than KEPT_MS is dropped whole, for by then the person has
 * seen that nothing happens and may no longer mean it.
 */

const KEPT_MS = 10_000;
const KEPT_BYTES = 4 << 10;

export class Unsent {
  pieces = [];
  size = 0;
  since = 0;

  /** Keep bytes; false when there is too much, or it waits too long already. */
  add(bytes, now = Date.now()) {
    if (!this.size) this.since = now;
    if (now - this.since > KEPT_MS) this.clear();
    else if (this.size + bytes.length <= KEPT_BYTES) {
      this.pieces.push(bytes);
      this.size += bytes.length;
      return true;
    }
    return false;
  }

  /** All that is kept, oldest first, and forget it; nothing when it is too old. */
  take(now = Date.now()) {
    const pieces = now - this.since > KEPT_MS ? [] : this.pieces;
    this.clear();
    return pieces;
  }

  clear() {
    this.pieces = [];
    this.size = 0;
  }
}
