"""A control plane that fails on purpose."""

import importlib
from collections.abc import Iterator

import pytest

from sandboxes.gateway import control

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
        yield plane
    module._breakers.clear()
    control._statuses.clear()
