"""A local runtime with real sandboxes for the tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from e2b import AsyncSandbox, Sandbox

from .server import Runtime, start_runtime


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """One runtime for all tests that do not stop it."""
    running = start_runtime(Path(tmp_path_factory.mktemp("runtime")))
    yield running
    running.stop()


@pytest.fixture
def own_runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A runtime of the test alone, to stop and start."""
    running = start_runtime(tmp_path / "runtime")
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="module")
def shared(runtime: Runtime) -> Iterator[Sandbox]:
    """One sandbox for the tests of a module that leave it as it was."""
    sandbox = Sandbox.create(timeout=600, **runtime.sdk)
    yield sandbox
    sandbox.kill()


@pytest.fixture
def sandbox(runtime: Runtime) -> Iterator[Sandbox]:
    """A sandbox of the test alone."""
    sandbox = Sandbox.create(timeout=300, **runtime.sdk)
    yield sandbox
    sandbox.kill()


@pytest.fixture
async def box(runtime: Runtime) -> AsyncIterator[AsyncSandbox]:
    """The same for asynchronous tests."""
    sandbox = await AsyncSandbox.create(timeout=300, **runtime.sdk)
    yield sandbox
    await sandbox.kill()
