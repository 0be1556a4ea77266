"""The runtime's ASGI application: which part answers a request.

A host name `<port>-<id>.<domain>` or the E2b-Sandbox headers lead to a sandbox: to
its envd, or to a port of it. All else is the control plane, for clients with the
API key and for no web page.
"""

import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .addresses import ENVD_PORT, Address, Refused, address_of, is_local, sandbox_at
from .answers import Refusal
from .door import Door
from .envd.app import EXPIRED, check_signature
from .proxy import forward
from .registry import Registry
from .rest import Rest
from .sandbox import Sandbox
from .snapshots import Snapshots
from .tunnel import REGISTRY

logger = logging.getLogger(__name__)


class Edge:
    """Sends each HTTP request where it belongs."""

    def __init__(
        self, registry: Registry, snapshots: Snapshots, *, api_key: str, domain: str
    ) -> None:
        self._registry, self._domain = registry, domain
        self._api_key = api_key.encode()
        self._rest = Rest(registry, snapshots, domain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        address = address_of(headers)
        try:
            if address is not None:
                sandbox = await sandbox_at(self._registry, address, headers)
                await reach(sandbox, address, scope, receive, send)
                return
            request = Request(scope, receive)
            if signed := self._signed(request):
                await signed.envd(scope, receive, send)
                return
            response = await self._control(request)
        except Refused as refused:
            response = JSONResponse(refused.body, refused.status)
        await response(scope, receive, send)

    def _signed(self, request: Request) -> Sandbox | None:
        """The sandbox of a signed URL that carries no id: the one whose token fits.

        It also answers that the signature is expired.
        """
        query = request.query_params
        if request.url.path != "/files" or "signature" not in query:
            return None
        operation = "write" if request.method == "POST" else "read"
        for sandbox in self._registry.all():
            token = sandbox.record.envd_token
            if token is None or not sandbox.running:
                continue
            if check_signature(request, operation, token) in (None, EXPIRED):
                return sandbox
        return None

    async def _control(self, request: Request) -> Response:
        if not is_local(request.headers.get("host", ""), self._domain):
            return Refusal(421, "this host name is not the runtime's").response()
        if "origin" in request.headers:
            text = "requests from web pages are refused"
            return Refusal(403, text, retry=False).response()
        if request.url.path == "/health":
            return Response(status_code=204)
        given = request.headers.get("x-api-key", "").encode()
        if not hmac.compare_digest(given, self._api_key):
            text = "Unauthorized, please check your credentials."
            return Refusal(401, text).response()
        return await self._rest(request)


async def reach(
    sandbox: Sandbox, address: Address, scope: Scope, receive: Receive, send: Send
) -> None:
    if address.port == ENVD_PORT:
        await sandbox.envd(scope, receive, send)
    else:
        await forward(sandbox, address, scope, receive, send)


def application(registry: Registry, *, api_key: str, domain: str, port: int) -> ASGIApp:
    """The application for uvicorn; its lifespan is the registry's, and the door's."""

    snapshots = Snapshots(registry)
    door = Door(registry, api_key, port)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Registry]]:
        await registry.driver.start()
        await registry.start()
        await snapshots.start()
        await door.open()
        try:
            yield {REGISTRY: registry}
        finally:
            await door.close()
            await registry.close()
            await registry.driver.close()

    edge = Edge(registry, snapshots, api_key=api_key, domain=domain)
    starlette = Starlette(lifespan=lifespan)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await starlette(scope, receive, send)
        else:
            await edge(scope, receive, send)

    return app
