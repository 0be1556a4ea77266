"""A server that speaks OpenAI's chat completions over loopback, as a script says.

The last message of the user is the script, as JSON:
    {"tools": [[name, args], ...], "text": "...", "delay_s": 0.0}
Answer number k of the turn calls tool k; when they are used up it says `text`,
a word at a time with `delay_s` between. Anything else is answered by "Hello.".
`calls` counts the answers begun, by number within the turn. With `refuses` set,
every request gets that HTTP status.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any


def sse(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One event of the stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"choices": [choice]})


def event(fields: dict[str, Any]) -> bytes:
    """One event, framed for HTTP."""
    chunk = {
        "id": "fake",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        **fields,
    }
    return frame(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def frame(data: bytes) -> bytes:
    """One chunk of HTTP's chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class FakeOpenAI:
    """The server; `url` is for OPENAI_BASE_URL."""

    def __init__(self) -> None:
        """Not listening yet."""
        self.calls: list[int] = []
        self.url = ""
        self.refuses = 0

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one connection until it closes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                said = (await reader.readuntil(b"\r\n\r\n")).lower()
                _, _, rest = said.partition(b"content-length:")
                size = int(rest.split(b"\r\n")[0]) if rest else 0
                body = json.loads(await reader.readexactly(size))
                if self.refuses:
                    answer = (
                        f"HTTP/1.1 {self.refuses} No\r\nContent-Length: 2\r\n\r\n{{}}"
                    )
                    writer.write(answer.encode())
                    continue
                await self.answer(body["messages"], writer)
        writer.close()

    async def answer(
        self, messages: list[dict[str, Any]], writer: asyncio.StreamWriter
    ) -> None:
        """One answer of the model, as a stream."""
        last = max(i for i, m in enumerate(messages) if m["role"] == "user")
        try:
            script = json.loads(messages[last]["content"])
        except ValueError:
            script = {"text": "Hello."}
        number = sum(1 for m in messages[last:] if m["role"] == "assistant")
        self.calls.append(number)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        tools = script.get("tools", [])
        if number < len(tools):
            writer.write(self.call(number, *tools[number]))
        else:
            for word in script.get("text", "Done.").split(" "):
                writer.write(sse({"role": "assistant", "content": f"{word} "}))
                await writer.drain()
                await asyncio.sleep(script.get("delay_s", 0))
            writer.write(sse({}, "stop"))
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        writer.write(event({"choices": [], "usage": usage}))
        writer.write(frame(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    def call(self, number: int, name: str, args: dict[str, Any]) -> bytes:
        """A tool call, its arguments in two pieces."""
        text = json.dumps(args)
        half = len(text) // 2
        head = {"index": 0, "id": f"call_{number}", "type": "function"}
        first = {**head, "function": {"name": name, "arguments": text[:half]}}
        second = {"index": 0, "function": {"arguments": text[half:]}}
        return (
            sse({"role": "assistant", "tool_calls": [first]})
            + sse({"tool_calls": [second]})
            + sse({}, "tool_calls")
        )


@contextlib.asynccontextmanager
async def fake_openai() -> AsyncIterator[FakeOpenAI]:
    """A running server on a free port."""
    fake = FakeOpenAI()
    server = await asyncio.start_server(fake.handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    fake.url = f"http://{host}:{port}/v1"
    try:
        yield fake
    finally:
        server.close()
