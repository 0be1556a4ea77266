"""What tests of sandboxes share: a failing control plane, a terminal."""

import importlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvicorn
from channels.db import database_sync_to_async

from kode_web.asgi import application
from sandboxes import gateway, shells, terminals
from sandboxes.gateway import control
from sandboxes.models import Sandbox, Terminal
from tests.local.server import wait_for

from .fake_plane import Plane, fake_plane
from .previews import Site

# The package's function of that name hides the module.
SERVER = Path(__file__).parent.parent / "local" / "inside_server.py"
module = importlib.import_module("sandboxes.gateway.backends")


@pytest.fixture
def plane(settings, tmp_path) -> Iterator[Plane]:
    """The product's settings, pointed at a control plane that fails on purpose."""
    key = tmp_path / "key"
    key.write_text("secret-key")
    module._breakers.clear()
    control._statuses.clear()
    with fake_plane() as plane:
        settings.RUNTIME_URL, settings.RUNTIME_KEY_FILE = plane.url, str(key)
        settings.DEFAULT_BACKEND = "local"
        yield plane
    module._breakers.clear()
    control._statuses.clear()


@pytest.fixture
async def terminal(house, sandbox) -> AsyncIterator[Terminal]:
    """An open terminal of the sandbox; its session ends with the test."""
    row = await database_sync_to_async(shells.create_row)(sandbox, house.bob)
    yield row
    if session := terminals.sessions.get(row.code):
        session.finish()
        for task in session._tasks:
            task.cancel()
        await session._pty.close()


@pytest.fixture
def site(transactional_db: None) -> Iterator[Site]:
    """uvicorn, as `./kode up` runs it, in a thread of the test."""
    config = uvicorn.Config(
        application, port=0, lifespan="on", log_level="warning", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    site = Site(server.servers[0].sockets[0].getsockname()[1])
    with site.http:
        yield site
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def served(sandbox: Sandbox) -> Sandbox:
    """A sandbox with the small server on port 3000."""
    with SERVER.open("rb") as file:
        gateway.upload(sandbox, "/home/user/server.py", file)
    gateway.run(sandbox, "nohup python3 server.py >/dev/null 2>&1 &")
    ready = "exec 3<>/dev/tcp/127.0.0.1/3000"
    wait_for(lambda: gateway.run(sandbox, ready).exit_code == 0)
    return sandbox
