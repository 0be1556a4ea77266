"""The asynchronous SDK against the same runtime."""

import asyncio
import os

import pytest
from e2b import AsyncSandbox, CommandExitException, SandboxNotRunningException

from .server import Runtime


async def test_life(runtime: Runtime) -> None:
    box = await AsyncSandbox.create(metadata={"kind": "async"}, **runtime.sdk)
    assert (await box.commands.run("echo hi")).stdout == "hi\n"
    assert (await box.get_info()).metadata == {"kind": "async"}
    assert await box.pause()
    again = await AsyncSandbox.connect(box.sandbox_id, **runtime.sdk)
    assert (await again.commands.run("echo hi")).stdout == "hi\n"
    assert await box.kill() is True
    assert await box.is_running() is False


async def test_files(box: AsyncSandbox) -> None:
    data = os.urandom(3_000_000)

    async def pieces():  # type: ignore[no-untyped-def]
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    await box.files.write("a", data)
    await box.files.write("b", pieces())
    assert await box.files.read("a", format="bytes") == data
    read = b""
    async for chunk in await box.files.read("b", format="stream"):
        read += chunk
    assert read == data
    assert {entry.name for entry in await box.files.list(".")} >= {"a", "b"}


async def test_commands_side_by_side(box: AsyncSandbox) -> None:
    runs = [box.commands.run(f"sleep 0.3; echo {n}") for n in range(20)]
    results = await asyncio.gather(*runs)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(20)]


async def test_stream_of_input(box: AsyncSandbox) -> None:
    seen: list[str] = []
    handle = await box.commands.run(
        "cat", background=True, stdin=True, on_stdout=seen.append
    )
    stream = box.commands.stream_input(handle.pid)
    await stream.send("one\n")
    async with asyncio.timeout(10):
        while "".join(seen) != "one\n":
            await asyncio.sleep(0.01)
    await stream.send("two\n")
    await stream.close()
    await handle.close_stdin()
    assert (await handle.wait()).stdout == "one\ntwo\n"


async def test_leaving_a_stream_leaves_the_command(box: AsyncSandbox) -> None:
    handle = await box.commands.run("sleep 100", background=True, timeout=0)
    await handle.disconnect()
    assert handle.pid in [process.pid for process in await box.commands.list()]
    assert await box.commands.kill(handle.pid)


async def test_end_of_the_sandbox_ends_its_streams(runtime: Runtime) -> None:
    box = await AsyncSandbox.create(**runtime.sdk)
    handle = await box.commands.run("sleep 100", background=True, timeout=0)
    await box.kill()
    with pytest.raises(SandboxNotRunningException):
        async with asyncio.timeout(10):
            await handle.wait()


async def test_exit_code(box: AsyncSandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        await box.commands.run("exit 9")
    assert caught.value.exit_code == 9
