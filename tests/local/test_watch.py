"""Watches of directories, polled (sync SDK) and streamed (async SDK)."""

import asyncio

import pytest
from e2b import AsyncSandbox, FilesystemEventType, Sandbox
from e2b.exceptions import (
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
)

from .server import wait_for

CREATE, WRITE = FilesystemEventType.CREATE, FilesystemEventType.WRITE
REMOVE, RENAME = FilesystemEventType.REMOVE, FilesystemEventType.RENAME


def collect(handle, wanted: set) -> list:  # type: ignore[no-untyped-def,type-arg]
    """Poll until every wanted (kind, name) was seen; all events."""
    events: list = []  # type: ignore[type-arg]

    def complete() -> bool:
        events.extend(handle.get_new_events())
        return wanted <= {(event.type, event.name) for event in events}

    wait_for(complete)
    return events


@pytest.mark.parametrize("top", ["/home/user/", "/"])
def test_names_are_relative_however_the_directory_is_written(
    sandbox: Sandbox, top: str
) -> None:
    sandbox.files.write("/home/user/there", "x")
    handle = sandbox.files.watch_dir(top, recursive=top != "/")
    sandbox.files.write(f"{top}seen", "x", user="root")
    entries = collect(handle, {(CREATE, "seen"), (WRITE, "seen")})
    assert {event.name for event in entries} == {"seen"}
    handle.stop()


def test_changes_are_told(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("seen")
    handle = sandbox.files.watch_dir("seen")
    sandbox.files.write("seen/f", "x")
    sandbox.commands.run("mv seen/f seen/g; rm seen/g; mkdir seen/d; touch seen/d/deep")
    wanted = {(CREATE, "f"), (WRITE, "f"), (RENAME, "f"), (CREATE, "g"), (REMOVE, "g")}
    events = collect(handle, wanted | {(CREATE, "d")})
    assert "d/deep" not in {event.name for event in events}
    handle.stop()
    with pytest.raises(SandboxException, match="stopped"):
        handle.get_new_events()


def test_recursive_watch_follows_new_directories(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("deep/there")
    handle = sandbox.files.watch_dir("deep", recursive=True)
    sandbox.files.write("deep/there/f", "x")
    sandbox.commands.run("mkdir -p deep/a/b/c; echo x > deep/a/b/c/d")
    collect(handle, {(CREATE, "there/f"), (CREATE, "a"), (CREATE, "a/b/c/d")})
    handle.stop()


def test_entries_come_with_events(sandbox: Sandbox) -> None:
    handle = sandbox.files.watch_dir(".", include_entry=True)
    sandbox.files.write("told", "12345")
    events = collect(handle, {(WRITE, "told")})
    entries = [event.entry for event in events if event.type is WRITE]
    assert entries[-1].size == 5
    assert entries[-1].path == "/home/user/./told" or entries[-1].name == "told"


def test_only_directories_are_watched(sandbox: Sandbox) -> None:
    sandbox.files.write("file", "x")
    with pytest.raises(InvalidArgumentException, match="not a directory"):
        sandbox.files.watch_dir("file")
    with pytest.raises(NotFoundException):
        sandbox.files.watch_dir("nope")


async def test_stream_of_events(box: AsyncSandbox) -> None:
    events: asyncio.Queue = asyncio.Queue()  # type: ignore[type-arg]
    handle = await box.files.watch_dir(".", on_event=events.put_nowait, timeout=0)
    await box.files.write("streamed", "x")
    async with asyncio.timeout(10):
        while (await events.get()).name != "streamed":
            pass
    await handle.stop()
