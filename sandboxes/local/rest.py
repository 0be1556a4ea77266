"""E2B's control plane over HTTP: sandboxes, templates, and our own `/kode/`.

A route is a method, a pattern of path segments and a handler. Segments are split
before they are decoded, so that an id may hold an encoded slash.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .answers import Refusal, connected, detail, listed, missing, too_many, unsupported
from .contract import BoxGone, IsolationUnavailable
from .envd.app import VERSION
from .records import Record, State
from .registry import DEFAULT_TEMPLATE, MAX_TIMEOUT_S, Registry
from .requests import (
    Page,
    body_of,
    draft_of,
    has_internet,
    number_of,
    page_of,
    range_of,
    timeout_of,
    whole_of,
)
from .sandbox import Conflict, NotFound, TooLong, TooMany
from .snapshot_rest import SnapshotRest, not_copied
from .snapshots import Snapshots

logger = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Response]]

NO_CONTENT = 204
MAX_LOG_LINES = 1000
EPOCH = "1970-01-01T00:00:00Z"  # templates are made with the runtime
UNSUPPORTED = {  # the first segment after the version, and what it stands for
    "volumes": "volumes",
    "volumecontent": "volumes",
    "secrets": "secrets",
    "templates": "building or changing templates",
    "teams": "teams",
    "nodes": "nodes",
    "access-tokens": "access tokens",
    "api-keys": "API keys",
    "events": "events",
}


class Rest:
    """Answers the control plane's requests; the caller has checked the API key."""

    def __init__(self, registry: Registry, snapshots: Snapshots, domain: str) -> None:
        self._registry, self._snapshots = registry, snapshots
        self._domain = domain
        one = "/sandboxes/*"
        v2 = partial(self.create, version=2)
        self._routes: list[tuple[str, list[str], Handler]] = [
            ("POST", split("/sandboxes"), partial(self.create, version=1)),
            ("POST", split("/v2/sandboxes"), v2),
            ("GET", split("/sandboxes"), self.list_v1),
            ("GET", split("/v2/sandboxes"), self.list_v2),
            ("GET", split("/sandboxes/metrics"), self.metrics_of_many),
            ("GET", split(one), self.get),
            ("DELETE", split(one), self.kill),
            ("POST", split(f"{one}/connect"), self.connect),
            ("POST", split(f"/v2{one}/connect"), self.connect),
            ("POST", split(f"{one}/resume"), self.resume),
            ("POST", split(f"{one}/pause"), self.pause),
            ("POST", split(f"{one}/timeout"), self.set_timeout),
            ("POST", split(f"{one}/refreshes"), self.refresh),
            ("PUT", split(f"{one}/network"), self.set_network),
            ("GET", split(f"{one}/metrics"), self.metrics),
            ("GET", split(f"{one}/logs"), self.logs_v1),
            ("GET", split(f"/v2{one}/logs"), self.logs_v2),
            ("GET", split("/templates"), self.templates),
            ("GET", split("/v2/templates"), self.templates),
            ("GET", split("/templates/aliases/*"), self.alias),
            ("GET", split("/kode/status"), self.status),
            ("POST", split("/kode/trees/base/build"), self.build_base),
        ]
        for method, path, handler in SnapshotRest(snapshots, domain).routes():
            self._routes.append((method, split(path), handler))

    async def __call__(self, request: Request) -> Response:
        """The answer to a request; every error is JSON."""
        try:
            return await self._dispatch(request)
        except Refusal as refusal:
            return refusal.response()
        except NotFound as problem:
            return missing(problem).response()
        except Conflict as problem:
            return Refusal(409, str(problem)).response()
        except BoxGone as problem:
            return Refusal(404, str(problem)).response()
        except IsolationUnavailable as problem:
            return Refusal(503, str(problem), retry=False).response()
        except Exception:  # the outermost loop of a request
            logger.exception("%s %s failed", request.method, request.url.path)
            return Refusal(500, "the local runtime failed; see its log").response()

    async def _dispatch(self, request: Request) -> Response:
        raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        parts = split(raw.partition(b"?")[0].decode("ascii", "replace"))
        known = False
        for method, pattern, handler in self._routes:
            arguments = match(pattern, parts)
            if arguments is None:
                continue
            known = True
            if request.method == method:
                return await handler(request, *arguments)
        raise self._refuse(request, parts, known=known)

    def _refuse(self, request: Request, parts: list[str], *, known: bool) -> Refusal:
        if parts and parts[0] in ("v2", "v3", "v4"):
            parts = parts[1:]
        if parts and (what := UNSUPPORTED.get(parts[0])):
            return unsupported(what)
        if known:
            return Refusal(405, f"{request.method} is not allowed here")
        return Refusal(404, f"no route {request.method} {request.url.path}")

    async def create(self, request: Request, *, version: int) -> Response:
        key = request.headers.get("idempotency-key")
        body = await body_of(request)
        draft = draft_of(body, version=version, key=key)
        await self._choose_files(draft, body["templateID"])
        try:
            sandbox = await self._registry.create(draft)
        except TooMany as problem:
            raise too_many(self._registry.max_running) from problem
        return JSONResponse(connected(sandbox.record, self._domain), 201)

    async def _choose_files(self, draft: Record, template: str) -> None:
        """What the sandbox starts from: a base tree, or a snapshot over one."""
        try:
            draft.base_tree = await self._registry.base_tree(draft.template)
            return
        except LookupError:
            pass
        try:
            snapshot = self._snapshots.find(template)
        except LookupError as problem:
            text = f"template '{draft.template}' not found"
            raise Refusal(404, text) from problem
        draft.base_tree, draft.snapshot = snapshot.base_tree, snapshot.snapshot_id

    async def list_v1(self, request: Request) -> Response:
        return self._page(page_of(request, states={State.RUNNING.value}))

    async def list_v2(self, request: Request) -> Response:
        return self._page(page_of(request, states={s.value for s in State}))

    def _page(self, page: Page) -> Response:
        records = [sandbox.record for sandbox in self._registry.all()]
        running = sum(record.state is State.RUNNING for record in records)
        found = [record for record in records if page.matches(record)]
        found.sort(key=lambda r: (r.started_at, r.sandbox_id))
        if not page.ascending:
            found.reverse()
        end = page.offset + page.limit
        headers = {"X-Total-Running": str(running)}
        if end < len(found):
            headers["X-Next-Token"] = str(end)
        rows = [listed(record) for record in found[page.offset : end]]
        return JSONResponse(rows, headers=headers)

    async def get(self, request: Request, sandbox_id: str) -> Response:
        record = self._registry.get(sandbox_id).record
        return JSONResponse(detail(record, self._domain))

    async def kill(self, request: Request, sandbox_id: str) -> Response:
        await self._registry.kill(sandbox_id)
        return Response(status_code=NO_CONTENT)

    async def connect(self, request: Request, sandbox_id: str) -> Response:
        body = await body_of(request)
        seconds = timeout_of(body, 300)
        memory = body.get("memory") is not False
        sandbox, resumed = await self._registry.connect(
            sandbox_id, seconds, memory=memory
        )
        answer = connected(sandbox.record, self._domain)
        return JSONResponse(answer, 201 if resumed else 200)

    async def resume(self, request: Request, sandbox_id: str) -> Response:
        seconds = timeout_of(await body_of(request), 15)
        sandbox = await self._registry.resume(sandbox_id, seconds)
        return JSONResponse(connected(sandbox.record, self._domain), 201)

    async def pause(self, request: Request, sandbox_id: str) -> Response:
        body = await body_of(request)
        memory = body.get("memory") is not False
        try:
            await self._registry.pause(sandbox_id, memory=memory)
        except OSError as problem:
            raise not_copied(problem) from problem
        return Response(status_code=NO_CONTENT)

    async def set_timeout(self, request: Request, sandbox_id: str) -> Response:
        seconds = number_of(await body_of(request), None, "timeout")
        await self._extend(sandbox_id, seconds)
        return Response(status_code=NO_CONTENT)

    async def refresh(self, request: Request, sandbox_id: str) -> Response:
        seconds = number_of(await body_of(request), 15, "duration")
        record = self._registry.get(sandbox_id).record
        await self._extend(sandbox_id, max(seconds, record.end_at - time.time()))
        return Response(status_code=NO_CONTENT)

    async def _extend(self, sandbox_id: str, seconds: float) -> None:
        try:
            await self._registry.set_timeout(sandbox_id, seconds)
        except TooLong as problem:
            hours = int(MAX_TIMEOUT_S // 3600)
            text = f"Max instance length exceeded ({hours} hours)"
            raise Refusal(400, text) from problem

    async def set_network(self, request: Request, sandbox_id: str) -> Response:
        body = await body_of(request)
        allowed = body.pop("allow_internet_access", None)
        internet = has_internet(body, allowed)
        await self._registry.set_network(sandbox_id, internet, body)
        return Response(status_code=NO_CONTENT)

    async def metrics(self, request: Request, sandbox_id: str) -> Response:
        sandbox = self._registry.get(sandbox_id)
        await self._registry.sample(sandbox)
        return JSONResponse(sandbox.samples.between(*range_of(request)))

    async def metrics_of_many(self, request: Request) -> Response:
        found: dict[str, Any] = {}
        for sandbox_id in request.query_params.get("sandbox_ids", "").split(","):
            try:
                sandbox = self._registry.get(sandbox_id)
            except NotFound:
                continue
            await self._registry.sample(sandbox)
            if latest := sandbox.samples.between(0, time.time() + 1)[-1:]:
                found[sandbox_id] = latest[0]
        return JSONResponse({"sandboxes": found})

    async def logs_v1(self, request: Request, sandbox_id: str) -> Response:
        query = request.query_params
        start_s = whole_of(query.get("start"), 0) / 1000
        limit = min(whole_of(query.get("limit"), MAX_LOG_LINES), MAX_LOG_LINES)
        log = self._registry.get(sandbox_id).log
        lines = log.since(start_s, limit, backward=False)
        entries = [line.wire() for line in lines]
        old = [{"timestamp": e["timestamp"], "line": e["message"]} for e in entries]
        return JSONResponse({"logs": old, "logEntries": entries})

    async def logs_v2(self, request: Request, sandbox_id: str) -> Response:
        query = request.query_params
        backward = query.get("direction", "forward") == "backward"
        now_ms = int((time.time() + 1) * 1000)
        cursor_ms = whole_of(query.get("cursor"), now_ms if backward else 0)
        limit = min(whole_of(query.get("limit"), MAX_LOG_LINES), MAX_LOG_LINES)
        log = self._registry.get(sandbox_id).log
        lines = log.since(cursor_ms / 1000, limit, backward=backward)
        if search := query.get("search"):
            lines = [line for line in lines if search in line.message]
        return JSONResponse({"logs": [line.wire() for line in lines]})

    async def templates(self, request: Request) -> Response:
        names = {tree.name for tree in await self._registry.driver.base_trees()}
        rows = [await self._template(n) for n in sorted(names | {DEFAULT_TEMPLATE})]
        return JSONResponse(rows)

    async def _template(self, name: str) -> dict[str, Any]:
        serving = await self._registry.base_tree(name)
        limits = self._registry.limits
        return {
            "templateID": name,
            "buildID": serving,
            "cpuCount": max(1, round(limits.cpus)),
            "memoryMB": limits.memory_mb,
            "diskSizeMB": limits.disk_mb,
            "public": True,
            "aliases": [name],
            "names": [name],
            "createdAt": EPOCH,
            "updatedAt": EPOCH,
            "createdBy": None,
            "lastSpawnedAt": None,
            "spawnCount": 0,
            "buildCount": 1,
            "envdVersion": VERSION,
            "buildStatus": "ready",
            "isDefault": name == DEFAULT_TEMPLATE,
            "description": describe(name, serving),
            "baseTree": serving,
        }

    async def alias(self, request: Request, alias: str) -> Response:
        name = alias.partition(":")[0].rpartition("/")[2]
        try:
            serving = await self._registry.base_tree(name)
        except LookupError:
            return self._alias_of_snapshot(alias)
        answer = {"templateID": name, "public": True, "baseTree": serving}
        return JSONResponse(answer | {"description": describe(name, serving)})

    def _alias_of_snapshot(self, alias: str) -> Response:
        try:
            snapshot = self._snapshots.find(alias)
        except LookupError as problem:
            raise Refusal(404, f"template alias '{alias}' not found") from problem
        answer = {"templateID": snapshot.public_id, "public": False}
        return JSONResponse(answer | {"baseTree": snapshot.base_tree})

    async def status(self, request: Request) -> Response:
        sandboxes = self._registry.all()
        running = sum(sandbox.running for sandbox in sandboxes)
        try:
            trees = await self._registry.driver.base_trees()
        except IsolationUnavailable:
            trees = []  # the probe says why
        return JSONResponse(
            {
                "probe": dict(await self._registry.driver.probe()),
                "trees": [
                    {"name": tree.name, "state": tree.state, "detail": tree.detail}
                    for tree in trees
                ],
                "sandboxes": {
                    "running": running,
                    "paused": len(sandboxes) - running,
                    "limit": self._registry.max_running,
                },
                "lost": self._registry.lost,
            }
        )

    async def build_base(self, request: Request) -> Response:
        await self._registry.driver.build_base()
        return Response(status_code=202)


def describe(name: str, serving: str) -> str:
    if name == serving:
        return f"the local base tree '{name}'"
    return f"served from the tree '{serving}' until the tree '{name}' is built"


def split(path: str) -> list[str]:
    return path.strip("/").split("/")


def match(pattern: list[str], parts: list[str]) -> list[str] | None:
    """The decoded segments where the pattern has `*`; None when it differs."""
    if len(pattern) != len(parts):
        return None
    found = []
    for wanted, given in zip(pattern, parts, strict=True):
        if wanted == "*":
            found.append(unquote(given))
        elif wanted != given:
            return None
    return found
