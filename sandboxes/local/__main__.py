"""`python -m sandboxes.local`: serves sandboxes of this machine over E2B's protocol.

Prints one JSON line `{"api_url", "sandbox_url", "domain", "pid"}` when it serves.
SIGTERM ends it; the sandboxes live on and are found again by the next run.
`python -m sandboxes.local doctor` prints what this machine gives.
"""

import argparse
import asyncio
import json
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from . import isolation
from .contract import Driver, IsolationUnavailable, Limits
from .records import Store
from .registry import Registry
from .server import application
from .tunnel import Tunnel

ANY_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
SHUTDOWN_S = 1  # for open requests; streams never end by themselves
KEEP_ALIVE_S = 120  # longer than clients keep a connection: they close it first
BACKLOG = 1024


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandboxes.local")
    parser.add_argument("command", nargs="?", choices=["serve", "doctor"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument("--root", type=Path, default=Path(".kode/runtime"))
    parser.add_argument("--api-key-file", type=Path, help="made when it is missing")
    parser.add_argument("--domain", help="of the previews; default localhost:PORT")
    parser.add_argument("--max-running", type=int, default=50)
    parser.add_argument("--spares", type=int, default=2, help="kept ready per tree")
    parser.add_argument("--cpus", type=float, default=Limits.cpus)
    parser.add_argument("--memory-mb", type=int, default=Limits.memory_mb)
    parser.add_argument("--pids", type=int, default=Limits.pids)
    parser.add_argument("--disk-mb", type=int, default=Limits.disk_mb)
    return parser.parse_args()


def api_key(path: Path) -> str:
    """The key in the file; a new one is written, readable by the owner alone."""
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = "e2b_" + secrets.token_hex(20)
        path.parent.mkdir(parents=True, exist_ok=True)
        opener = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opener, "w") as file:
            file.write(key + "\n")
    if not key:
        sys.exit(f"{path} holds no API key")
    return key


class Announcing(uvicorn.Server):
    """Prints the line that tells where it serves, once it does."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._line, flush=True)


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def serve(options: argparse.Namespace, driver: Driver, key: str) -> None:
    sock = listen(options.host, options.port)
    port = sock.getsockname()[1]
    host = ANY_HOSTS.get(options.host, options.host)
    url = f"http://{f'[{host}]' if ':' in host.strip('[]') else host}:{port}"
    domain = options.domain or f"localhost:{port}"
    limits = Limits(options.cpus, options.memory_mb, options.pids, options.disk_mb)
    store = Store(options.root / "records")
    most = options.max_running
    registry = Registry(
        driver, store, limits=limits, max_running=most, spares=options.spares
    )
    line = {"api_url": url, "sandbox_url": url, "domain": domain, "pid": os.getpid()}
    config = uvicorn.Config(
        application(registry, api_key=key, domain=domain, port=port),
        ws=Tunnel,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # raised again once it is down
        signal.signal(number, lambda *_: sys.exit(0))
    Announcing(config, json.dumps(line)).run(sockets=[sock])


async def doctor(driver: Driver) -> None:
    await driver.start()
    try:
        found = await driver.probe()
        width = max(map(len, found), default=0)
        for name, value in found.items():
            print(f"{name:<{width}}  {value}")
        for tree in await driver.base_trees():
            print(f"tree {tree.name}: {tree.state} {tree.detail}".rstrip())
    except IsolationUnavailable as problem:
        print(problem)
    finally:
        await driver.close()


def main() -> None:
    options = arguments()
    options.root = options.root.absolute()
    options.root.mkdir(parents=True, exist_ok=True)
    key = api_key(options.api_key_file or options.root / "api-key")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        driver = isolation.launch(options.root)
    except IsolationUnavailable as problem:
        sys.exit(f"sandboxes cannot run on this machine: {problem}")
    if options.command == "doctor":
        asyncio.run(doctor(driver))
    else:
        serve(options, driver, key)


main()
