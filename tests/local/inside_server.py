"""A small HTTP and websocket server that tests run inside a sandbox, on port 3000.

Standard library only. It tells what it was asked; `/events`, `/chunks`, `/cut` and
`/broken` answer in the way of their name; a websocket gets back what it sent.
"""

import asyncio
import base64
import hashlib
import json

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
READY = {
    "/broken": b"this is no HTTP\r\n\r\n",
    "/bad-name": b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
    "/bad-status": b"HTTP/1.1 999 Odd\r\n\r\n",
    "/cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    "/chunks": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
    ),
}
TOLD = (
    "HTTP/1.1 203 Fine\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"
    "connection: keep-alive\r\nkeep-alive: timeout=5\r\ncontent-length: {}\r\n\r\n"
)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *rows = head[:-4].split("\r\n")
    headers = {k.lower(): v for k, v in (row.split(": ", 1) for row in rows)}
    method, path, _ = line.split(" ")
    if "sec-websocket-key" in headers:
        await echo(reader, writer, headers["sec-websocket-key"])
    elif path == "/events":
        await events(writer)
    elif path in READY:
        writer.write(READY[path])
    else:
        await tell(reader, writer, method, path, headers)
    await writer.drain()
    writer.close()


async def events(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    for n in range(3):
        writer.write(b"data: %d\n\n" % n)
        await writer.drain()
        await asyncio.sleep(0.4)


async def tell(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    headers: dict[str, str],
) -> None:
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    told = {"method": method, "path": path, "headers": headers, "size": len(body)}
    answer = json.dumps(told | {"sha": hashlib.sha256(body).hexdigest()}).encode()
    writer.write(TOLD.format(len(answer)).encode())
    if method != "HEAD":
        writer.write(answer)


async def echo(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str
) -> None:
    accept = base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
        b"connection: Upgrade\r\nsec-websocket-accept: " + accept + b"\r\n\r\n"
    )
    first = 0
    while first & 15 != 8:
        first, second = await reader.readexactly(2)
        length, extra = second & 127, b""
        if length > 125:
            extra = await reader.readexactly(2 if length == 126 else 8)
        size = int.from_bytes(extra, "big") if extra else length
        mask = await reader.readexactly(4)
        data = await reader.readexactly(size)
        key_stream = (mask * (size // 4 + 1))[:size]
        plain = int.from_bytes(data, "big") ^ int.from_bytes(key_stream, "big")
        writer.write(bytes((first, length)) + extra + plain.to_bytes(size, "big"))


async def main() -> None:
    async with await asyncio.start_server(serve, "127.0.0.1", 3000) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
