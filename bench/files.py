"""Files to and from a sandbox by the web server, beside a plain file server.

Run: .venv/bin/python -m bench.files [--rounds 3] [--megabytes 200]

Up is an upload in pieces, as the browser sends it; down, zip and tar are what its
buttons fetch. Plain is `python -m http.server` that gives a file of the same size.
Memory is what the web process grew by, at its highest.
"""

import argparse
import base64
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from bench.product import Product, running_product

PIECE = 8 << 20


def rss_mb(pid: int) -> float:
    """Memory of a process now."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    return int(found[1]) / 1024 if found else 0.0


def highest(pid: int, work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of some work, and by how much the process grew meanwhile."""
    before = top = rss_mb(pid)
    is_over = threading.Event()

    def look() -> None:
        nonlocal top
        while not is_over.wait(0.02):
            top = max(top, rss_mb(pid))

    thread = threading.Thread(target=look)
    thread.start()
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    is_over.set()
    thread.join()
    return seconds, top - before


class Files:
    """A sandbox's files, as a browser asks for them."""

    def __init__(self, product: Product) -> None:
        self.code, _ = product.new_terminal()
        headers = {"Cookie": product.cookie, "Accept": "application/json"}
        self.http = httpx.Client(base_url=product.url, headers=headers, timeout=300)
        page = self.http.get(f"/sandboxes/{self.code}/files/").text
        token = re.search(r'X-CSRFToken": "([^"]+)', page)
        assert token
        self.http.headers.update({"X-CSRFToken": token[1], "Origin": product.url})

    def up(self, data: bytes) -> None:
        """Upload it in pieces."""
        told = ",".join(
            f"{name} {base64.b64encode(value).decode()}"
            for name, value in (("filename", b"data"), ("conflict", b"replace"))
        )
        begun = self.http.post(
            f"/sandboxes/{self.code}/uploads/?folder=/home/user/in",
            headers={"Upload-Length": str(len(data)), "Upload-Metadata": told},
        )
        for at in range(0, len(data), PIECE):
            answer = self.http.patch(
                begun.headers["Location"],
                content=data[at : at + PIECE],
                headers={
                    "Upload-Offset": str(at),
                    "Content-Type": "application/offset+octet-stream",
                },
            )
            assert answer.status_code == 204, answer.text

    def down(self, path: str) -> int:
        """Fetch it, in bytes."""
        return fetch(self.http, f"/sandboxes/{self.code}/files/{path}")


def fetch(client: httpx.Client, address: str) -> int:
    """Read an answer to its end, in bytes."""
    with client.stream("GET", address) as answer:
        answer.raise_for_status()
        return sum(len(piece) for piece in answer.iter_raw(1 << 20))


def plain(folder: str, rounds: int) -> list[float]:
    """Seconds of a file of the same size from a plain server."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        port = re.search(r"port (\d+)", server.stdout.readline())
        assert port
        client = httpx.Client(base_url=f"http://127.0.0.1:{port[1]}", timeout=300)
        found = []
        for _ in range(rounds):
            begun = time.perf_counter()
            fetch(client, "/data")
            found.append(time.perf_counter() - begun)
        return found
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure each in turn, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--megabytes", type=int, default=200)
    chosen = options.parse_args()
    data = os.urandom(chosen.megabytes << 20)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "data").write_bytes(data)
        rows = {"plain down": [(one, 0.0) for one in plain(folder, chosen.rounds)]}
        with running_product(Path(folder, "product")) as product:
            files, pid = Files(product), product.web_pid()
            work: dict[str, Callable[[], object]] = {
                "up": lambda: files.up(data),
                "down": lambda: files.down("home/user/in/data?download=1"),
                "tar.gz": lambda: files.down("home/user/in?archive=tar"),
                "zip": lambda: files.down("home/user/in?archive=zip"),
            }
            for _ in range(chosen.rounds):
                for name, call in work.items():
                    rows.setdefault(name, []).append(highest(pid, lambda c=call: c()))
    print(f"{'':12}{'MB/s':>10}{'web process, MB':>18}")
    for name, found in rows.items():
        seconds = statistics.median(one for one, _ in found)
        grown = max(more for _, more in found)
        print(f"{name:12}{chosen.megabytes / seconds:10.0f}{grown:18.1f}")


if __name__ == "__main__":
    main()
