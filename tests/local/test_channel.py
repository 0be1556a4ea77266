"""What comes out of a sandbox is its word: the control channel checks it."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from sandboxes.local.contract import BoxGone
from sandboxes.local.isolation.box import LocalBox
from sandboxes.local.isolation.channel import Channel
from sandboxes.local.isolation.launcher import LauncherClient

from .isolated import (
    ROOT,
)


async def test_hostile_answers_break_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours)
    before = len(os.listdir("/proc/self/fd"))
    null = os.open("/dev/null", os.O_RDWR)
    calls = [asyncio.ensure_future(channel.call_for_fd("dial", n)) for n in range(5)]
    await asyncio.sleep(0)
    answers = [b"0\x000\x00x", b"1\x00-5\x001", b"2\x000\x000", b"3\x000\x000"]
    passed: list[list[int]] = [[null], [null], [], [null, null]]
    for packet, fds in zip([b"99\x000\x000", *answers], [[null], *passed], strict=True):
        socket.send_fds(theirs, [packet], fds)
    socket.send_fds(theirs, [b"4\x000\x007"], [null] * 20)
    results = await asyncio.gather(*calls, return_exceptions=True)
    os.close(null)
    assert all(isinstance(result, OSError) for result in results), results
    assert len(os.listdir("/proc/self/fd")) == before
    theirs.close()
    await channel.ended.wait()
    with pytest.raises(BoxGone):
        await channel.call("ping")


@pytest.mark.parametrize("call", ["dial", "pty"])
async def test_wrong_descriptor_is_refused(tmp_path: Path, call: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "ctl"))
    listener.listen()
    unused, other = socket.socketpair()
    box = LocalBox("x", tmp_path / "ctl", LauncherClient(unused))
    await box.connect(paused=True)
    peer, _ = listener.accept()
    if call == "dial":
        asked = asyncio.ensure_future(box.dial(80))
    else:
        size = {"rows": 2, "cols": 2}
        pty = box.spawn_pty(("sh",), identity=ROOT, env={}, cwd="/", **size)
        asked = asyncio.ensure_future(pty)
    await asyncio.sleep(0.01)
    number = peer.recv(1000).split(b"\0")[1]
    null = os.open("/dev/null", os.O_RDWR)
    left, right = socket.socketpair()
    wrong = left.fileno() if call == "dial" else null
    socket.send_fds(peer, [number + b"\x000\x001"], [wrong])
    with pytest.raises(OSError, match="something else"):
        await asked
    os.close(null)
    box.let_go()
    for sock in (listener, peer, unused, other, left, right):
        sock.close()
