"""What the runtime answers on the wire, where the SDK does not look."""

import socket
import time

import pytest
from e2b import Sandbox

from .server import Runtime, fetch


@pytest.mark.parametrize("key", [None, "", "e2b_wrong"])
def test_no_key_no_answer(runtime: Runtime, key: str | None) -> None:
    headers = {} if key is None else {"X-API-KEY": key}
    answer = runtime.call("GET", "/v2/sandboxes", headers=headers, key=False)
    assert answer.status == 401
    assert answer.json["code"] == 401
    assert runtime.call("GET", "/kode/status", headers=headers, key=False).status == 401


def test_web_pages_are_refused(runtime: Runtime) -> None:
    headers = {"Origin": "http://evil.example"}
    assert runtime.call("GET", "/v2/sandboxes", headers=headers).status == 403
    headers = {"Host": "evil.example"}
    assert runtime.call("GET", "/v2/sandboxes", headers=headers).status == 421


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nosuch", 404, "no route"),
        ("GET", "/v9/nosuch", 404, "no route"),
        ("PATCH", "/v2/sandboxes", 405, "not allowed"),
        ("GET", "/sandboxes/inosuch", 404, '"inosuch" doesn\'t exist'),
        ("GET", "/sandboxes/a%2Fb", 404, '"a/b" doesn\'t exist'),
        ("POST", "/v3/templates", 501, "templates: not supported"),
        ("GET", "/volumes", 501, "volumes: not supported"),
        ("GET", "/secrets", 501, "secrets: not supported"),
        ("GET", "/templates/aliases/ns%2Fnosuch", 404, "'ns/nosuch' not found"),
    ],
)
def test_every_error_is_json(
    runtime: Runtime, method: str, path: str, status: int, words: str
) -> None:
    answer = runtime.call(method, path)
    assert answer.status == status
    assert answer.json["code"] == status
    assert words in answer.json["message"]
    assert status != 501 or answer.headers["should-retry"] == "false"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"templateID": 5},
        {"templateID": "base", "timeout": "x"},
        {"templateID": "base", "metadata": {"a": 1}},
        {"templateID": "base", "envVars": {"a=b": "c"}},
        ["no object"],
    ],
)
def test_a_bad_body_is_the_clients_fault(runtime: Runtime, body: object) -> None:
    answer = runtime.call("POST", "/v2/sandboxes", body)
    assert (answer.status, answer.json["code"]) == (400, 400)


@pytest.mark.parametrize("name", ["iam", "volumeMounts"])
def test_what_is_missing_is_named(runtime: Runtime, name: str) -> None:
    body = {"templateID": "base", name: {"a": "b"}}
    answer = runtime.call("POST", "/v2/sandboxes", body)
    assert answer.status == 501
    assert name in answer.json["message"]


def test_v1_create_lives_15_seconds_and_needs_no_token(runtime: Runtime) -> None:
    made = runtime.call("POST", "/sandboxes", {"templateID": "base"}).json
    path = f"/sandboxes/{made['sandboxID']}"
    info = runtime.call("GET", path).json
    headers = {"E2b-Sandbox-Id": made["sandboxID"]}
    envs = fetch("GET", f"{runtime.api_url}/envs", None, headers)
    assert runtime.call("DELETE", path).status == 204
    assert "envdAccessToken" not in made
    assert envs.json["E2B_SANDBOX"] == "true"
    assert info["endAt"] > info["startedAt"]


def test_a_template_not_built_yet_says_what_serves_it(runtime: Runtime) -> None:
    trees = {t["name"]: t for t in runtime.call("GET", "/kode/status").json["trees"]}
    expected = "base" if trees.get("base", {}).get("state") == "ready" else "host"
    alias = runtime.call("GET", "/templates/aliases/base").json
    assert (alias["templateID"], alias["baseTree"]) == ("base", expected)
    listed = {t["templateID"]: t for t in runtime.call("GET", "/templates").json}
    assert listed["base"]["baseTree"] == expected
    assert listed["host"]["baseTree"] == "host"


def test_status_counts(runtime: Runtime, sandbox: Sandbox) -> None:
    status = runtime.call("GET", "/kode/status").json
    assert status["sandboxes"]["running"] >= 1
    assert status["probe"]
    assert "host" in {tree["name"] for tree in status["trees"]}


def test_logs_tell_of_processes(runtime: Runtime, sandbox: Sandbox) -> None:
    pid = sandbox.commands.run("sleep 9", background=True).pid
    path = f"/v2/sandboxes/{sandbox.sandbox_id}/logs"
    forward = [e["message"] for e in runtime.call("GET", path).json["logs"]]
    assert forward[0] == "Sandbox started"
    assert forward[-1] == f"Process with pid {pid} started"
    backward = runtime.call("GET", f"{path}?direction=backward&limit=1").json["logs"]
    assert [entry["message"] for entry in backward] == forward[-1:]
    old = runtime.call("GET", f"/sandboxes/{sandbox.sandbox_id}/logs").json
    assert old["logs"][0]["line"] == "Sandbox started"


def test_refresh_extends(runtime: Runtime, sandbox: Sandbox) -> None:
    path = f"/sandboxes/{sandbox.sandbox_id}"
    before = runtime.call("GET", path).json["endAt"]
    assert runtime.call("POST", f"{path}/refreshes", {"duration": 9}).status == 204
    assert runtime.call("GET", path).json["endAt"] >= before
    assert runtime.call("POST", f"{path}/refreshes", {"duration": 3000}).status == 204
    assert runtime.call("GET", path).json["endAt"] > before
    too_long = runtime.call("POST", f"{path}/timeout", {"timeout": 10**6})
    assert too_long.json["message"].startswith("Max instance length exceeded")


def test_resume_of_a_running_sandbox_is_a_conflict(
    runtime: Runtime, sandbox: Sandbox
) -> None:
    path = f"/sandboxes/{sandbox.sandbox_id}"
    assert runtime.call("POST", f"{path}/resume", {"timeout": 60}).status == 409
    assert runtime.call("POST", f"{path}/pause").status == 204
    assert runtime.call("POST", f"{path}/pause").status == 409
    assert runtime.call("POST", f"{path}/resume", {"timeout": 60}).status == 201


def test_an_id_with_a_client_id_is_accepted(runtime: Runtime, sandbox: Sandbox) -> None:
    answer = runtime.call("GET", f"/sandboxes/{sandbox.sandbox_id}-local")
    assert answer.json["sandboxID"] == sandbox.sandbox_id


def test_envd_wants_its_token(runtime: Runtime, sandbox: Sandbox) -> None:
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id}
    rpc = headers | {"Content-Type": "application/json"}
    base = runtime.sandbox_url
    assert fetch("GET", f"{base}/health", None, headers).status == 204
    for path in ("/process.Process/List", "/filesystem.Filesystem/Stat"):
        assert fetch("POST", base + path, b"{}", rpc).json["code"] == 401
    for path in ("/envs", "/metrics", "/init", "/files?path=/etc/passwd"):
        assert fetch("GET", base + path, None, headers).json["code"] == 401
    token = {"X-Access-Token": "wrong"}
    answer = fetch("GET", f"{base}/files?path=/etc/passwd", None, headers | token)
    assert answer.status == 401


def test_a_dead_sandbox_is_a_bad_gateway(runtime: Runtime) -> None:
    headers = {"E2b-Sandbox-Id": "inosuch"}
    answer = fetch("GET", f"{runtime.sandbox_url}/health", None, headers)
    assert answer.status == 502
    assert answer.json["message"] == "The sandbox was not found"
    assert answer.json["sandboxId"] == "inosuch"


def test_a_client_that_leaves_is_noticed(runtime: Runtime, sandbox: Sandbox) -> None:
    """An idle stream whose client vanished does not stay open in the runtime."""

    def connections() -> int:
        with open(f"/proc/{runtime.pid}/net/tcp") as table:
            end = f":{runtime.port:04X}"
            rows = [row.split() for row in table]
        return sum(row[1].endswith(end) and row[3] == "01" for row in rows)

    before = connections()
    handle = sandbox.commands.run("sleep 60", background=True, timeout=0)
    handle.disconnect()
    end = time.monotonic() + 3
    while connections() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert connections() <= before


def test_garbage_is_survived(runtime: Runtime) -> None:
    for junk in (
        b"\x00\xff\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", runtime.port)) as sock:
            sock.sendall(junk)
            sock.recv(100)
    assert runtime.call("GET", "/kode/status").status == 200
