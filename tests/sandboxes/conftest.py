"""What tests of sandboxes share: a failing control plane, a terminal."""

import importlib
from collections.abc import AsyncIterator, Iterator

import pytest
from channels.db import database_sync_to_async

from sandboxes import shells, terminals
from sandboxes.gateway import control
from sandboxes.models import Terminal

from .fake_plane import Plane, fake_plane

# The package's function of that name hides the module.
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
