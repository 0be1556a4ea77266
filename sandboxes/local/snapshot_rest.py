"""The control plane's part for snapshots and forks."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .answers import Refusal, connected, too_many, unsupported
from .contract import BoxGone
from .records import Snapshot
from .requests import MAX_LIMIT, Body, body_of, number_of, timeout_of, whole_of
from .sandbox import Sandbox, TooMany
from .snapshots import RESERVED, BadName, Snapshots, split_reference

logger = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Response]]

FORK_TIMEOUT_S, MAX_FORKS = 15, 20


class SnapshotRest:
    """Answers requests about snapshots; Rest has the errors they have in common."""

    def __init__(self, snapshots: Snapshots, domain: str) -> None:
        self._snapshots, self._domain = snapshots, domain

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, pattern and handler of each."""
        return [
            ("POST", "/sandboxes/*/snapshots", self.take),
            ("POST", "/sandboxes/*/fork", self.fork),
            ("GET", "/snapshots", self.list),
            ("DELETE", "/templates/*", self.delete),
        ]

    async def take(self, request: Request, sandbox_id: str) -> Response:
        body = await body_of(request)
        if body.get("memory") is True:
            raise unsupported("snapshots with memory")
        try:
            snapshot = await self._snapshots.take(sandbox_id, name_of(body))
        except BadName as problem:
            raise Refusal(400, str(problem)) from problem
        except OSError as problem:
            raise not_copied(problem) from problem
        return JSONResponse(described(snapshot), 201)

    async def list(self, request: Request) -> Response:
        query = request.query_params
        wanted, sandbox_id = query.get("name"), query.get("sandboxID")
        name = wanted and split_reference(wanted)[0]
        found = [
            snapshot
            for snapshot in self._snapshots.all()
            if sandbox_id in (None, snapshot.sandbox_id)
            and name in (None, "", snapshot.name, snapshot.snapshot_id)
        ]
        start = max(whole_of(query.get("nextToken"), 0), 0)
        limit = min(max(whole_of(query.get("limit"), MAX_LIMIT), 1), MAX_LIMIT)
        end = start + limit
        headers = {"X-Next-Token": str(end)} if end < len(found) else None
        rows = [described(snapshot) for snapshot in found[start:end]]
        return JSONResponse(rows, headers=headers)

    async def delete(self, request: Request, reference: str) -> Response:
        try:
            await self._snapshots.remove(self._snapshots.find(reference))
        except LookupError as problem:
            if split_reference(reference)[0] in RESERVED:
                raise unsupported("deleting a base tree") from problem
            raise Refusal(404, f"template '{reference}' not found") from problem
        return Response(status_code=204)

    async def fork(self, request: Request, sandbox_id: str) -> Response:
        body = await body_of(request)
        count = number_of(body, 1, "count")
        if count != int(count) or not 1 <= count <= MAX_FORKS:
            raise Refusal(400, f"count must be a whole number from 1 to {MAX_FORKS}")
        seconds = timeout_of(body, FORK_TIMEOUT_S)
        try:
            made = await self._snapshots.fork(sandbox_id, int(count), seconds)
        except OSError as problem:
            raise not_copied(problem) from problem
        return JSONResponse([self._outcome(one) for one in made], 201)

    def _outcome(self, made: Sandbox | BaseException) -> dict[str, Any]:
        if isinstance(made, Sandbox):
            return {"sandbox": connected(made.record, self._domain)}
        if isinstance(made, TooMany):
            refusal = too_many(self._snapshots.max_running)
        elif isinstance(made, BoxGone):
            refusal = Refusal(404, str(made))
        else:
            logger.error("a fork failed: %r", made)
            refusal = Refusal(500, "the local runtime failed; see its log")
        return {"error": {"code": refusal.status, "message": str(refusal)}}


def name_of(body: Body) -> str | None:
    name = body.get("name")
    if name is not None and not isinstance(name, str):
        raise Refusal(400, "Error when parsing request: name must be a string")
    return name


def not_copied(problem: OSError) -> Refusal:
    logger.warning("files of a sandbox are not copied: %s", problem)
    return Refusal(500, f"the files of the sandbox cannot be copied: {problem}")


def described(snapshot: Snapshot) -> dict[str, Any]:
    return {"snapshotID": snapshot.public_id, "names": snapshot.names}
