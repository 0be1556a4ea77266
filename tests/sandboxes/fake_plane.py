"""A control plane that fails on purpose, and knows what it really holds."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

type Answer = int | str


@dataclass
class Fault:
    """What calls that fit `pattern`, as in "POST /v2/sandboxes", get instead."""

    pattern: str
    answer: Answer
    times: int = 10**9


class Plane:
    """What the backend holds, what it was asked, and how it misbehaves.

    `answer` is what every request gets instead of the truth: a status, "hang",
    "drop" (acts, and hangs up without an answer), "half" (acts, and hangs up in the
    middle of it) or "garbage"; empty for the truth. `faults` are the same for some
    calls, as often as each says.
    """

    def __init__(self) -> None:
        self.machines: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.answer: Answer = ""
        self.faults: list[Fault] = []
        self.headers: dict[str, str] = {}
        self.page_size = 100
        self.url = ""
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._keys: dict[str, str] = {}

    def add(
        self, sandbox_id: str, *, age_s: float = 0, **metadata: str
    ) -> dict[str, Any]:
        """A machine with these marks that began some time ago."""
        now = time.time()
        machine = {
            "templateID": "base",
            "sandboxID": sandbox_id,
            "clientID": "local",
            "startedAt": stamp(now - age_s),
            "endAt": stamp(now + 3600),
            "envdVersion": "0.6.13",
            "cpuCount": 1,
            "memoryMB": 512,
            "diskSizeMB": 512,
            "state": "running",
            "metadata": metadata,
        }
        self.machines[sandbox_id] = machine
        return machine

    def fault(self, method: str, path: str) -> Answer:
        """What this call gets instead of the truth, empty for nothing else."""
        for fault in self.faults:
            if fault.times > 0 and re.fullmatch(fault.pattern, f"{method} {path}"):
                fault.times -= 1
                return fault.answer
        return self.answer

    def act(
        self, method: str, path: str, body: Any, key: str | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Do what is asked: the status, the answer, its headers."""
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match method, url.path.strip("/").split("/"):
            case "POST", ["v2", "sandboxes"]:
                return 201, self._create(body, key), {}
            case "GET", ["v2", "sandboxes"]:
                return self._page(query)
            case "GET", ["snapshots"]:
                found = [
                    one
                    for one in self.snapshots.values()
                    if one["sandboxID"] == query.get("sandboxID", one["sandboxID"])
                ]
                return 200, found, {}
            case "DELETE", ["templates", name] if name in self.snapshots:
                del self.snapshots[name]
                return 204, None, {}
            case _, ["v2", *rest] if rest:
                return self.act(method, f"/{'/'.join(rest)}", body)
            case _, ["sandboxes", sandbox_id, *verb] if sandbox_id in self.machines:
                return self._machine(method, self.machines[sandbox_id], verb, body)
        return 404, {"code": 404, "message": "not found"}, {}

    def _create(self, body: Any, key: str | None) -> dict[str, Any]:
        if key and (known := self.machines.get(self._keys.get(key, ""))):
            return known
        sandbox_id = f"i{len(self._keys):04}{time.monotonic_ns():015}"
        self._keys[key or sandbox_id] = sandbox_id
        return self.add(sandbox_id, **body["metadata"])

    def _page(self, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        wanted = parse_qs(query.get("metadata", ""))
        found = [
            one
            for one in sorted(self.machines.values(), key=lambda m: m["sandboxID"])
            if all(one["metadata"].get(k) == v[0] for k, v in wanted.items())
        ]
        at = int(query.get("nextToken", 0))
        end = at + self.page_size
        headers = {"X-Next-Token": str(end)} if end < len(found) else {}
        return 200, found[at:end], headers

    def _machine(
        self, method: str, machine: dict[str, Any], verb: list[str], body: Any
    ) -> tuple[int, Any, dict[str, str]]:
        match method, verb:
            case "GET", []:
                return 200, machine, {}
            case "DELETE", []:
                del self.machines[machine["sandboxID"]]
                return 204, None, {}
            case "POST", ["pause"]:
                if machine["state"] == "paused":
                    return 409, {"code": 409, "message": "already paused"}, {}
                machine["state"] = "paused"
                return 204, None, {}
            case "POST", ["connect"]:
                resumed = machine["state"] == "paused"
                machine["state"] = "running"
                if resumed:
                    machine["endAt"] = stamp(time.time() + body["timeout"])
                return (201 if resumed else 200), machine, {}
            case "POST", ["timeout"]:
                machine["endAt"] = stamp(time.time() + body["timeout"])
                return 204, None, {}
            case "POST", ["snapshots"]:
                name = body.get("name") or f"s{len(self.snapshots)}"
                made = {
                    "snapshotID": name,
                    "names": [name],
                    "sandboxID": machine["sandboxID"],
                }
                self.snapshots[name] = made
                return 201, made, {}
            case "GET", ["metrics"]:
                return 200, [], {}
        return 404, {"code": 404, "message": "not found"}, {}


def stamp(seconds: float) -> str:
    """A moment as the wire writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Handler(BaseHTTPRequestHandler):
    """One request to `plane`."""

    plane: Plane

    def handle_one(self) -> None:
        """Answer as the plane does now."""
        plane = self.plane
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        with plane.lock:
            plane.asked.append(f"{self.command} {self.path}")
            answer = plane.fault(self.command, path)
        if answer == "hang":
            plane.closing.wait(30)
            return
        if isinstance(answer, int):
            said = {"code": answer, "message": "on purpose"}
            self.say("", answer, said, {})
            return
        body = json.loads(raw or b"null") if raw[:1] in (b"{", b"") else None
        key = self.headers.get("Idempotency-Key")
        with plane.lock:
            result = plane.act(self.command, self.path, body, key)
        if answer == "drop":
            self.close_connection = True
            return
        self.say(answer, *result)

    def say(self, how: str, status: int, said: Any, headers: dict[str, str]) -> None:
        """Send it; half of it, or garbage, if that is how."""
        text = b"" if said is None else json.dumps(said).encode()
        if how == "garbage":
            text = b"{half"
        self.send_response(status)
        for name, value in (self.plane.headers | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        # Of half a body the other half never comes.
        is_half = how == "half"
        length = max(2 * len(text), 10) if is_half else len(text)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(text)
        if is_half:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = handle_one

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def fake_plane() -> Iterator[Plane]:
    """A plane that serves on a free port."""
    plane = Plane()
    handler = type("Handler", (Handler,), {"plane": plane})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
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
