"""The last bytes of a terminal."""

from sandboxes.ring import Ring


def test_a_short_tail_is_all_there_is() -> None:
    ring = Ring()
    ring.append(b"one\r\ntwo")
    assert ring.tail(100) == b"one\r\ntwo"


def test_a_cut_tail_is_whole_lines_after_the_modes_of_the_rest() -> None:
    ring = Ring()
    ring.append(b"\x1b[?2004h" + b"x" * 20_000 + b"\r\n")
    for number in range(10_000):
        ring.append(b"line %d\r\n" % number)
    tail = ring.tail(1000)
    assert len(tail) <= 1008
    assert tail.startswith(b"\x1b[?2004hline ")
    assert tail.endswith(b"line 9999\r\n")


def test_a_tail_begins_a_ring_with_the_same_modes() -> None:
    ring = Ring()
    ring.append(b"\x1b[?1049h" + b"x\n" * 40_000)
    again = Ring()
    again.append(ring.tail(4096))
    assert again.is_full_screen
