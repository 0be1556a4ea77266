"""Terminals over the real path, against terminado in the same rounds.

Run: .venv/bin/python -m bench.terminal [--rounds 3] [--megabytes 20]

Ours is a browser's socket to uvicorn, the SDK, the runtime and a shell in a
sandbox; terminado is a socket to tornado and a shell on the host; bare is a shell
on a PTY of this process. Rounds are interleaved: compare within one table.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from bench.product import Product, running_product

KEYS = 100
ACK_BYTES = 64 << 10
STALL_S = 6.0
SHELL = ["/bin/bash", "--norc", "--noprofile", "-i"]
TERMINADO = """
import sys, tornado.ioloop, tornado.web, terminado
shells = terminado.UniqueTermManager(shell_command=sys.argv[1:])
handlers = [("/ws", terminado.TermSocket, {"term_manager": shells})]
server = tornado.web.Application(handlers).listen(0, "127.0.0.1")
port = next(iter(server._sockets.values())).getsockname()[1]
print(port, flush=True)
tornado.ioloop.IOLoop.current().start()
"""


class Ours:
    """A terminal of the product, as the browser speaks to it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.offset, self.acked = socket, 0, 0

    async def type(self, text: str) -> None:
        await self.socket.send(text.encode())

    async def read(self) -> bytes:
        data = await self.socket.recv()
        if isinstance(data, str):
            self.offset = json.loads(data).get("start", self.offset)
            return b""
        self.offset += len(data)
        if self.offset - self.acked >= ACK_BYTES or len(data) < 512:
            self.acked = self.offset
            await self.socket.send(json.dumps({"ack": self.offset}))
        return data


class Theirs:
    """A terminal of terminado."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def type(self, text: str) -> None:
        await self.socket.send(json.dumps(["stdin", text]))

    async def read(self) -> bytes:
        kind, *rest = json.loads(await self.socket.recv())
        return rest[0].encode() if kind == "stdout" else b""


class Bare:
    """A shell on a PTY of this process."""

    def __init__(self, master: int) -> None:
        self.master = master

    async def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def read(self) -> bytes:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.master, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.master)
        return os.read(self.master, 65536)


type Terminal = Ours | Theirs | Bare


async def until(terminal: Terminal, text: bytes) -> int:
    """Read until the output holds the text; how many bytes came."""
    tail, count = b"", 0
    while text not in tail:
        data = await terminal.read()
        count += len(data)
        tail = tail[-len(text) :] + data
    return count


async def echo_ms(terminal: Terminal) -> list[float]:
    """Milliseconds from a key to the first byte of its echo."""
    await terminal.type("echo re''ady\r")
    await until(terminal, b"ready")
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(terminal.read(), 0.3)
    found = []
    for _ in range(KEYS):
        begun = time.perf_counter()
        await terminal.type("x")
        while not await terminal.read():
            continue
        found.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.01)
    await terminal.type("\x15")
    return found


async def flood(terminal: Terminal, megabytes: int) -> float:
    """Seconds for so many megabytes of lines."""
    size = megabytes << 20
    await terminal.type(
        f"head -c {size} /dev/zero | tr '\\0' x | fold -w 100; echo d''one\r"
    )
    begun = time.perf_counter()
    await until(terminal, b"done")
    return time.perf_counter() - begun


async def echo_under_flood_ms(typed: Terminal, other: Terminal) -> list[float]:
    """Milliseconds of a key's echo while another terminal of the server floods."""
    await other.type("yes $(seq 20)\r")
    reading = asyncio.create_task(read_on(other))
    try:
        return await echo_ms(typed)
    finally:
        reading.cancel()
        await other.type("\x03")


async def read_on(terminal: Terminal) -> None:
    """Take all output, for ever."""
    while True:
        await terminal.read()


async def growth_mb(
    terminal: Ours | Theirs, pids: Callable[[], list[int]], megabytes: int
) -> float:
    """Largest growth of any server process while the client does not read."""
    before = {pid: memory_mb(pid) for pid in pids()}
    await terminal.type(
        f"head -c {megabytes << 20} /dev/zero | tr '\\0' x; echo d''one\r"
    )
    most, end = 0.0, time.perf_counter() + STALL_S
    while time.perf_counter() < end:
        await asyncio.sleep(0.2)
        most = max(most, *(memory_mb(p) - before[p] for p in before))
    return most


def memory_mb(pid: int) -> float:
    """Memory that the process alone holds."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pids: list[int]) -> float:
    """Seconds of processor time of all of them."""
    spent = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def ours(product: Product) -> AsyncIterator[Ours]:
    """A new shell in the product's sandbox."""
    code, terminal = product.new_terminal()
    address = f"ws://localhost:{product.port}/ws/sandboxes/{code}/terminals/{terminal}/"
    headers = {"Cookie": product.cookie, "Host": f"localhost:{product.port}"}
    async with connect(
        address,
        additional_headers=headers,
        origin=product.url,
        compression=None,
        max_queue=4,
        max_size=None,
        proxy=None,
    ) as socket:
        yield Ours(socket)


@contextlib.asynccontextmanager
async def theirs(port: int) -> AsyncIterator[Theirs]:
    """A new shell of terminado's."""
    address = f"ws://127.0.0.1:{port}/ws"
    async with connect(
        address, compression=None, max_queue=4, max_size=None, proxy=None
    ) as socket:
        yield Theirs(socket)


@contextlib.asynccontextmanager
async def bare() -> AsyncIterator[Bare]:
    """A shell on a PTY."""
    pid, master = pty.fork()
    if pid == 0:
        os.execv(SHELL[0], SHELL)
    try:
        yield Bare(master)
    finally:
        os.close(master)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@dataclass
class Table:
    """Figures by row and column."""

    rows: dict[str, dict[str, list[float]]]

    def add(self, row: str, column: str, *values: float) -> None:
        self.rows.setdefault(row, {}).setdefault(column, []).extend(values)

    def print(self) -> None:
        title = "medians, and the most growth"
        print(f"{title:34}{'bare':>9}{'terminado':>11}{'ours':>9}{'ours/their':>12}")
        for name, columns in self.rows.items():
            # A process keeps what it once took: only its first growth shows.
            pick = max if "growth" in name else statistics.median
            middle = {c: pick(v) for c, v in columns.items()}
            cells = "".join(
                f"{middle[c]:{w}.2f}" if c in middle else " " * w
                for c, w in (("bare", 9), ("terminado", 11), ("ours", 9))
            )
            ratio = middle["ours"] / middle["terminado"] if middle["terminado"] else 0
            print(f"{name:34}{cells}{ratio:12.2f}")


async def one_round(
    product: Product, tornado: int, pid: int, megabytes: int, table: Table
) -> None:
    """Each figure once for each peer."""
    async with bare() as terminal:
        table.add("echo, ms", "bare", *await echo_ms(terminal))
    for column, opened, pids in (
        ("terminado", theirs(tornado), lambda: [pid]),
        ("ours", ours(product), product.server_pids),
    ):
        async with opened as terminal:
            table.add("echo, ms", column, *await echo_ms(terminal))
            before = cpu_s(pids())
            seconds = await flood(terminal, megabytes)
            table.add("flood, MB/s", column, megabytes / seconds)
            cpu = (cpu_s(pids()) - before) * 100 / megabytes
            table.add("flood, CPU s per 100 MB", column, cpu)
    for column, opened, other in (
        ("terminado", theirs(tornado), theirs(tornado)),
        ("ours", ours(product), ours(product)),
    ):
        async with opened as terminal, other as flooding:
            found = await echo_under_flood_ms(terminal, flooding)
            table.add("echo under another's flood, ms", column, *found)
    for column, opened, pids in (
        ("terminado", theirs(tornado), lambda: [pid]),
        ("ours", ours(product), product.server_pids),
    ):
        async with opened as terminal:
            await terminal.type("echo re''ady\r")
            await until(terminal, b"ready")
            grown = await growth_mb(terminal, pids, 200)
            table.add("200 MB unread, growth in MB", column, grown)


def main() -> None:
    """Start both servers, measure, print, end them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--megabytes", type=int, default=20)
    chosen = options.parse_args()
    tornado = subprocess.Popen(
        [sys.executable, "-c", TERMINADO, *SHELL],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert tornado.stdout is not None
    table = Table({})
    try:
        port = int(tornado.stdout.readline())
        with (
            tempfile.TemporaryDirectory() as data,
            running_product(Path(data)) as product,
        ):
            for _ in range(chosen.rounds):
                asyncio.run(
                    one_round(product, port, tornado.pid, chosen.megabytes, table)
                )
    finally:
        tornado.terminate()
        tornado.wait()
    table.print()


if __name__ == "__main__":
    main()
