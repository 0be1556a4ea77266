"""Servers inside a sandbox, reached by their host name through the runtime."""

import asyncio
import json
import shutil
import time
from pathlib import Path

import httpx
import pytest
from e2b import Sandbox, SandboxNetworkOpts
from websockets.asyncio.client import connect as websocket

from .server import Runtime, wait_for

SERVER = Path(__file__).with_name("inside_server.py")


def up(sandbox: Sandbox) -> Sandbox:
    """The same sandbox, with the server running on port 3000 of its loopback."""
    sandbox.files.write("server.py", SERVER.read_text())
    sandbox.commands.run("python3 server.py", background=True, timeout=0)
    ready = (
        "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 3000))'"
    )
    wait_for(lambda: sandbox.commands.run(ready + " 2>&1 || echo no").stdout == "")
    return sandbox


@pytest.fixture(scope="module")
def served(shared: Sandbox) -> Sandbox:
    return up(shared)


def ask(
    runtime: Runtime, host: str, method: str = "GET", path: str = "/", **options: object
) -> httpx.Response:
    """A request with the preview's host name, sent to the runtime's address."""
    headers = {"Host": host, **options.pop("headers", {})}  # type: ignore[dict-item]
    url = runtime.api_url + path
    return httpx.request(method, url, headers=headers, timeout=20, **options)  # type: ignore[arg-type]


def test_host_name_carries_the_runtimes_port(runtime: Runtime, served: Sandbox) -> None:
    expected = f"3000-{served.sandbox_id}.localhost:{runtime.port}"
    assert served.get_host(3000) == expected


def test_request_and_answer_pass_unchanged(runtime: Runtime, served: Sandbox) -> None:
    host = served.get_host(3000)
    headers = {"X-Own": "1", "Cookie": "c=d", "Origin": "http://page.example"}
    answer = ask(runtime, host, path="/a%2Fb?q=%20x", headers=headers)
    told = answer.json()
    assert answer.status_code == 203
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "keep-alive" not in answer.headers
    assert told["path"] == "/a%2Fb?q=%20x"
    assert told["headers"]["host"] == host
    assert told["headers"]["cookie"] == "c=d"
    assert told["headers"]["x-own"] == "1"


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies(runtime: Runtime, served: Sandbox, chunked: bool) -> None:
    import hashlib

    data = bytes(range(256)) * 40_000
    body = (data[i : i + 99_999] for i in range(0, len(data), 99_999))
    answer = ask(
        runtime, served.get_host(3000), "POST", content=body if chunked else data
    )
    assert answer.json()["size"] == len(data)
    assert answer.json()["sha"] == hashlib.sha256(data).hexdigest()


def test_methods_without_a_body(runtime: Runtime, served: Sandbox) -> None:
    host = served.get_host(3000)
    assert ask(runtime, host, "HEAD").content == b""
    assert ask(runtime, host, "OPTIONS").json()["method"] == "OPTIONS"
    assert ask(runtime, host, "DELETE", "/x").json()["path"] == "/x"


def test_chunks_and_broken_answers(runtime: Runtime, served: Sandbox) -> None:
    host = served.get_host(3000)
    assert ask(runtime, host, path="/chunks").text == "hello world"
    broken = ask(runtime, host, path="/broken")
    assert (broken.status_code, broken.json()["code"]) == (502, 502)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(runtime, host, path="/cut")


def test_events_arrive_one_by_one(runtime: Runtime, served: Sandbox) -> None:
    times = []
    headers = {"Host": served.get_host(3000)}
    url = f"{runtime.api_url}/events"
    with httpx.stream("GET", url, headers=headers) as answer:
        for _ in answer.iter_raw():
            times.append(time.monotonic())
    assert len(times) == 3
    assert times[2] - times[0] > 0.6


def test_closed_port_and_dead_sandbox(runtime: Runtime, served: Sandbox) -> None:
    closed = ask(runtime, served.get_host(4444))
    assert closed.status_code == 502
    assert closed.json() == {
        "sandboxId": served.sandbox_id,
        "message": "The sandbox is running but port is not open",
        "port": 4444,
        "code": 502,
    }
    dead = ask(runtime, f"3000-inosuch.{runtime.domain}")
    assert dead.json()["message"] == "The sandbox was not found"


def test_envd_by_its_host_name(runtime: Runtime, served: Sandbox) -> None:
    assert ask(runtime, served.get_host(49983), path="/health").status_code == 204
    assert ask(runtime, served.get_host(49983), path="/envs").status_code == 401


async def test_websocket(runtime: Runtime, served: Sandbox) -> None:
    url = f"ws://{served.get_host(3000)}/socket?x=1"
    async with websocket(url, host="127.0.0.1", max_size=None, proxy=None) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        large = b"x" * 2_000_000
        await socket.send(large)
        async with asyncio.timeout(20):
            assert await socket.recv() == large


async def test_websocket_to_nowhere_is_refused(
    runtime: Runtime, served: Sandbox
) -> None:
    from websockets.exceptions import InvalidStatus

    url = f"ws://{served.get_host(4444)}/"
    with pytest.raises(InvalidStatus) as caught:
        await websocket(url, host="127.0.0.1", proxy=None).__aenter__()
    response = caught.value.response
    assert response.status_code == 502
    assert b"port is not open" in json.dumps(json.loads(response.body)).encode()
    with pytest.raises(InvalidStatus) as caught:
        await websocket(runtime.api_url.replace("http", "ws"), proxy=None).__aenter__()
    assert caught.value.response.status_code == 404


def test_private_traffic_needs_its_token(runtime: Runtime) -> None:
    options = {"network": {"allow_public_traffic": False}, **runtime.sdk}
    sandbox = up(Sandbox.create(**options))
    try:
        host = sandbox.get_host(3000)
        name = "e2b-traffic-access-token"
        token = sandbox.traffic_access_token
        assert token
        assert ask(runtime, host).status_code == 403
        assert ask(runtime, host, headers={name: "wrong"}).status_code == 403
        answer = ask(runtime, host, headers={name: token})
        assert answer.status_code == 203
        assert name not in answer.json()["headers"]
    finally:
        sandbox.kill()


def test_traffic_wakes_a_sandbox_that_asked_for_it(runtime: Runtime) -> None:
    lifecycle = {"on_timeout": "pause", "auto_resume": True}
    sandbox = up(Sandbox.create(timeout=60, lifecycle=lifecycle, **runtime.sdk))
    try:
        sandbox.pause()
        assert ask(runtime, sandbox.get_host(3000)).status_code == 203
        assert sandbox.is_running()
    finally:
        sandbox.kill()


def test_malformed_headers_do_not_pass(runtime: Runtime, served: Sandbox) -> None:
    host = served.get_host(3000)
    for path in ("/bad-name", "/bad-status"):
        answer = ask(runtime, host, path=path)
        assert (answer.status_code, answer.json()["code"]) == (502, 502)


TLS_SERVER = """
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers.as_bytes())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=own"
    " -keyout key.pem -out cert.pem"
)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_port_may_speak_tls(runtime: Runtime) -> None:
    network: SandboxNetworkOpts = {"https_ports": [8443]}
    sandbox = Sandbox.create(network=network, **runtime.sdk)
    try:
        sandbox.files.write("tls.py", TLS_SERVER)
        sandbox.commands.run(MAKE_CERTIFICATE)
        sandbox.commands.run("python3 tls.py", background=True, timeout=0)
        host = sandbox.get_host(8443)
        wait_for(lambda: ask(runtime, host).status_code == 200)
        assert f"\nHost: {host}\n" in "\n" + ask(runtime, host).text
        assert sandbox.get_info().network == network
    finally:
        sandbox.kill()


def test_a_port_that_should_speak_tls_and_does_not(runtime: Runtime) -> None:
    sandbox = up(Sandbox.create(network={"https_ports": [3000]}, **runtime.sdk))
    answer = ask(runtime, sandbox.get_host(3000))
    sandbox.kill()
    assert (answer.status_code, "TLS" in answer.json()["message"]) == (502, True)


@pytest.mark.parametrize("ports", ["8443", [0], [True], [70000]])
def test_impossible_tls_ports_are_refused(runtime: Runtime, ports: object) -> None:
    body = {"templateID": "base", "network": {"httpsPorts": ports}}
    answer = runtime.call("POST", "/v2/sandboxes", body)
    assert (answer.status, "httpsPorts" in answer.json["message"]) == (400, True)
