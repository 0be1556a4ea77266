/**
 * How far a terminal has come: every byte of output has a number.
 *
 * `offset` is the number of the next byte to come, null before the first start;
 * numbers belong to the run of the shell's session that `epoch` names.
 */

export const ACK_BYTES = 64 << 10;

export class Progress {
  offset = null;
  epoch = "";
  acked = 0;
  drawn = 0;
  live = 0;

  /** Go on from where the server says; before `live` everything is a replay. */
  begin({ start, epoch, reset, live }) {
    this.offset = this.acked = this.drawn = start;
    this.epoch = epoch;
    this.live = reset ? (live ?? start) : start;
  }

  /** What to ask for when connecting again. */
  get query() {
    return this.offset === null ? {} : { from: this.offset, epoch: this.epoch };
  }

  /** Whether what is being drawn was drawn before, by somebody. */
  get isReplay() {
    return this.drawn < this.live;
  }

  /** Count bytes that came; pieces that are either all replay or all new. */
  take(data) {
    const old = this.live - this.offset;
    const cut = old > 0 && old < data.length ? old : 0;
    const pieces = cut ? [data.subarray(0, cut), data.subarray(cut)] : [data];
    return pieces.map((piece) => ({ piece, end: (this.offset += piece.length), epoch: this.epoch }));
  }

  /** All before `end` is drawn: the offset to acknowledge, or null. */
  draw({ end, epoch }) {
    if (epoch !== this.epoch || end < this.drawn) return null;
    this.drawn = end;
    if (end - this.acked < ACK_BYTES && end !== this.offset) return null;
    this.acked = end;
    return end;
  }
}
