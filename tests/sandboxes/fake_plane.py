"""A control plane that fails on purpose, and knows what it really holds."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Plane:
    """What the backend holds, what it was asked, and how it misbehaves.

    `answer` is what every request gets instead of the truth: a status, "hang",
    "drop" (acts, and hangs up without an answer) or "garbage"; empty for the truth.
    """

    def __init__(self) -> None:
        self.machines: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.answer: int | str = ""
        self.headers: dict[str, str] = {}
        self.url = ""
        self.closing = threading.Event()

    def add(
        self, sandbox_id: str, *, age_s: float = 0, **metadata: str
    ) -> dict[str, Any]:
        """A machine with these marks that began some time ago."""
        stamp = "%Y-%m-%dT%H:%M:%SZ"
        now = time.time()
        machine = {
            "templateID": "base",
            "sandboxID": sandbox_id,
            "clientID": "local",
            "startedAt": time.strftime(stamp, time.gmtime(now - age_s)),
            "endAt": time.strftime(stamp, time.gmtime(now + 3600)),
            "envdVersion": "0.6.13",
            "cpuCount": 1,
            "memoryMB": 512,
            "diskSizeMB": 512,
            "state": "running",
            "metadata": metadata,
        }
        self.machines[sandbox_id] = machine
        return machine

    def act(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Do what is asked, and say so."""
        parts = path.partition("?")[0].strip("/").split("/")
        if method == "POST" and parts == ["v2", "sandboxes"]:
            sandbox_id = f"i{len(self.asked):019}"
            return 201, self.add(sandbox_id, **body["metadata"])
        if method == "GET" and parts == ["v2", "sandboxes"]:
            return 200, list(self.machines.values())
        machine = self.machines.get(parts[1] if parts[0] == "sandboxes" else "")
        if machine is None:
            return 404, {"code": 404, "message": "not found"}
        if method == "DELETE":
            del self.machines[machine["sandboxID"]]
            return 204, None
        return 200, machine


@contextmanager
def fake_plane() -> Iterator[Plane]:
    """A plane that serves on a free port."""
    plane = Plane()

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        def handle_one(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or b"null")
            plane.asked.append(f"{self.command} {self.path}")
            answer = plane.answer
            if answer == "hang":
                plane.closing.wait(30)
                return
            status, said = 502, None
            if isinstance(answer, int):
                status, said = answer, {"code": answer, "message": "on purpose"}
            else:
                status, said = plane.act(self.command, self.path, body)
            if answer == "drop":
                self.close_connection = True
                return
            text = b"" if said is None else json.dumps(said).encode()
            if answer == "garbage":
                text = b"{half"
            self.send_response(status)
            for name, value in plane.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = handle_one

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    plane.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield plane
    finally:
        plane.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
