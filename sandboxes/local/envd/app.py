"""The ASGI application of one sandbox's envd: who may call, and what is called.

GET /health; GET and POST /files; GET /envs and /metrics; the RPC services.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandboxes.local.contract import BoxGone

from .context import Departure, Services, client_left
from .errors import answer, http_error
from .files import download, upload
from .filesystem import FilesystemService
from .processes import ProcessService
from .proto.filesystem_connect import FilesystemASGIApplication
from .proto.process_connect import ProcessASGIApplication

RPC: dict[str, Any] = {"compressions": (), "read_max_bytes": 32 << 20}
EXPIRED = "signature is already expired"
VERSION = "0.6.13"  # of the envd whose behaviour is copied; clients look at it


class Envd:
    """Routes a request that was addressed to a sandbox's envd."""

    def __init__(self, services: Services, cpus: Callable[[], float]) -> None:
        self._services, self._cpus = services, cpus
        processes = ProcessService(services)
        files = FilesystemService(services)
        self._rpc: dict[str, Any] = {
            "process.Process": ProcessASGIApplication(processes, **RPC),
            "filesystem.Filesystem": FilesystemASGIApplication(files, **RPC),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._rpc.get(scope["path"].strip("/").partition("/")[0])
        if service is not None and self._may(Request(scope)):
            await self._call(service, scope, receive, send)
            return
        request = Request(scope, receive)
        await (await self._http(request))(scope, receive, send)

    async def _call(
        self, service: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let a stream know at once when its client leaves."""
        departure = Departure()
        client_left.set(departure)

        async def listening() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                departure.announce()
            return message

        await service(scope, listening, send)

    async def _http(self, request: Request) -> Response:
        match request.method, request.url.path:
            case "GET" | "HEAD", "/health":
                return Response(status_code=204, headers={"Cache-Control": "no-store"})
            case ("GET" | "HEAD" | "POST") as method, "/files":
                reading = method != "POST"
                if refusal := self._refusal(request, "read" if reading else "write"):
                    return answer(401, refusal)
                return await (download if reading else upload)(request, self._services)
        if not self._may(request):
            text = "unauthorized access, please provide a valid access token"
            return answer(401, f"{text} or method signing if supported")
        match request.method, request.url.path:
            case "GET", "/envs":
                return JSONResponse({"E2B_SANDBOX": "true", **self._services.env})
            case "GET", "/metrics":
                return await self._metrics()
        return answer(404, f"{request.method} {request.url.path} is not served")

    async def _metrics(self) -> Response:
        try:
            stats = await self._services.box.stats()
        except BoxGone as problem:
            return http_error(problem, "metrics")
        return JSONResponse(
            {
                "ts": int(time.time()),
                "cpu_count": self._cpus(),
                "cpu_used_s": stats.cpu_used_s,
                "mem_total": stats.memory_total,
                "mem_used": stats.memory_used,
                "mem_cache": stats.memory_cache,
                "disk_used": stats.disk_used,
                "disk_total": stats.disk_total,
            }
        )

    def _may(self, request: Request) -> bool:
        token = self._services.token
        given = request.headers.get("x-access-token", "")
        return token is None or same(given, token)

    def _refusal(self, request: Request, operation: str) -> str | None:
        """Why `/files` is refused; None when the token or a signature is right."""
        token = self._services.token
        if token is None:
            return None
        if given := request.headers.get("x-access-token"):
            if same(given, token):
                return None
            return "access token present in header but does not match"
        return check_signature(request, operation, token)


def check_signature(request: Request, operation: str, token: str) -> str | None:
    """What is wrong with the signature in the query; None when it is right."""
    query = request.query_params
    if "signature" not in query:
        return "missing signature query parameter"
    path, user = query.get("path", ""), query.get("username", "")
    parts = [path, operation, user, token]
    expiration = query.get("signature_expiration")
    if expiration is not None:
        parts.append(expiration)
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    expected = "v1_" + base64.b64encode(digest).decode().rstrip("=")
    if not same(query["signature"], expected):
        return "invalid signature"
    if expiration is not None and not fresh(expiration):
        return EXPIRED
    return None


def fresh(expiration: str) -> bool:
    return (
        expiration.isascii() and expiration.isdigit() and int(expiration) > time.time()
    )


def same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
