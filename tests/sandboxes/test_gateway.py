"""The door to backends: its errors, its breaker, and what it asks for."""

import asyncio
import importlib
import inspect
import time

import e2b
import httpx
import pytest

from sandboxes import errors, gateway
from sandboxes.gateway import Breaker, Status, control, translate
from sandboxes.models import Sandbox

from .fake_plane import fake_plane

# The package's function of that name hides the module.
module = importlib.import_module("sandboxes.gateway.backends")
TABLE = [
    (e2b.FileNotFoundException("x"), errors.NotFound),
    (e2b.SandboxNotFoundException("x"), errors.Gone),
    (e2b.NotFoundException("x"), errors.NotFound),
    (e2b.SandboxNotRunningException("x"), errors.Gone),
    (e2b.SandboxUnreachableException("x"), errors.Unreachable),
    (e2b.GuestUnresponsiveException("x"), errors.Unreachable),
    (e2b.TimeoutException("x"), errors.Unreachable),
    (e2b.InvalidArgumentException("x"), errors.Invalid),
    (e2b.NotEnoughSpaceException("x"), errors.TooLarge),
    (e2b.AuthenticationException("x"), errors.Refused),
    (e2b.RateLimitException("x"), errors.Busy),
    (e2b.ServiceBusyException("x"), errors.Unreachable),
    (e2b.SandboxException("x", status_code=409), errors.NotReady),
    (e2b.SandboxException("x", status_code=400), errors.Invalid),
    (e2b.SandboxException("x", status_code=500), errors.Unreachable),
    (e2b.SandboxException("x"), errors.SandboxError),
    (httpx.ConnectError("x"), errors.Unreachable),
    (httpx.ReadTimeout("x"), errors.Unreachable),
    (ConnectionRefusedError("x"), errors.Unreachable),
    (ValueError("half a body"), errors.Unreachable),
]


@pytest.mark.parametrize(("theirs", "ours"), TABLE, ids=lambda e: repr(e))
def test_each_error_has_one_of_ours(theirs, ours) -> None:
    assert type(translate(theirs)) is ours


def test_a_late_command_is_its_own_affair() -> None:
    late = translate(e2b.TimeoutException("x"), in_command=True)
    assert type(late) is errors.TimedOut


def test_no_error_of_the_sdk_is_forgotten() -> None:
    """A new kind of the SDK's must be put into the table, or named here."""
    not_of_sandboxes = {
        "BuildException",
        "CommandExitException",
        "DockerfileSyntaxError",
        "FileUploadException",
        "GitAuthException",
        "GitUpstreamException",
        "SandboxException",
        "SecretException",
        "SecretNotFoundException",
        "TemplateException",
        "VolumeException",
        "VolumeNotFoundException",
        "VolumePathNotFoundException",
    }
    known = {type(theirs).__name__ for theirs, _ in TABLE}
    theirs = {
        name
        for name, kind in vars(e2b).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert theirs - known - not_of_sandboxes == set()


def box(**fields: object) -> Sandbox:
    return Sandbox(backend="local", sandbox_id="iabc", op_id="f" * 32, **fields)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (401, errors.Refused),
        (404, errors.Invalid),
        (429, errors.Busy),
        (500, errors.Unreachable),
        (502, errors.Unreachable),
        (503, errors.Unreachable),
        (504, errors.Unreachable),
        ("drop", errors.Unreachable),
        ("garbage", errors.Unreachable),
    ],
)
def test_create_is_sent_once_whatever_is_answered(plane, answer, kind) -> None:
    plane.answer = answer
    with pytest.raises(kind):
        gateway.create(box())
    assert plane.asked == ["POST /v2/sandboxes"]


def test_create_marks_the_machine_as_ours(plane, settings) -> None:
    made = gateway.create(box(metadata={"a": "b"}))
    assert made.metadata == {
        "a": "b",
        "kode_op": "f" * 32,
        "kode_instance": settings.INSTANCE_ID,
    }


def test_a_sick_backend_is_left_alone(plane) -> None:
    plane.answer = 500
    for _ in range(module.FAILURES):
        with pytest.raises(errors.Unreachable):
            gateway.info(box())
    asked, begun = len(plane.asked), time.monotonic()
    with pytest.raises(errors.Unreachable, match="Next try in"):
        gateway.info(box())
    assert time.monotonic() - begun < 0.5
    assert len(plane.asked) == asked


def test_a_silent_backend_takes_a_bounded_time(plane, monkeypatch) -> None:
    plane.answer = "hang"
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 0.5)
    begun = time.monotonic()
    with pytest.raises(errors.Unreachable):
        gateway.info(box())
    assert time.monotonic() - begun < 3


def test_the_breaker_lets_one_probe_through(monkeypatch) -> None:
    breaker = Breaker()
    for _ in range(module.FAILURES):
        breaker.note(failed=True)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + module.COOL_S + 1)
    breaker.check()
    with pytest.raises(errors.Unreachable):
        breaker.check()
    breaker.note(failed=False)
    breaker.check()


def test_old_failures_do_not_count(monkeypatch) -> None:
    breaker, now = Breaker(), time.monotonic()
    for n in range(module.FAILURES * 2):
        monkeypatch.setattr(time, "monotonic", lambda n=n: now + n * module.WINDOW_S)
        breaker.note(failed=True)
    assert not breaker.is_open


def test_status_is_kept_and_never_raises(plane) -> None:
    assert gateway.status("local") == Status(True)
    plane.answer = 500
    assert gateway.status("local").is_ok
    control._statuses.clear()
    assert not gateway.status("local").is_ok
    asked = len(plane.asked)
    assert not gateway.status("local").is_ok
    assert len(plane.asked) == asked


def test_the_key_does_not_follow_a_redirect(plane) -> None:
    with fake_plane() as other:
        plane.answer, plane.headers = 307, {"Location": f"{other.url}/templates"}
        with pytest.raises(errors.SandboxError):
            gateway.templates("local")
        assert other.asked == []


def test_the_key_is_in_no_repr(plane) -> None:
    assert "secret-key" not in repr(gateway.backend("local"))


real = pytest.mark.django_db(transaction=True)


@real
def test_a_machines_silence_does_not_open_the_breaker(sandbox) -> None:
    for _ in range(module.FAILURES + 1):
        with pytest.raises(errors.TimedOut):
            gateway.run(sandbox, "sleep 5", timeout_s=0.2)
    assert gateway.info(sandbox).state == "running"
    assert not gateway.breaker("local").is_open


@real
def test_what_prints_without_end_is_stopped(sandbox) -> None:
    with pytest.raises(errors.TooLarge):
        gateway.run(sandbox, "yes")
    assert gateway.run(sandbox, "pgrep -x yes").stdout == ""


@real
def test_output_is_whole_whatever_its_bytes(sandbox) -> None:
    result = gateway.run(
        sandbox, "printf 'é\\xff\\n' | head -c 9; printf '\\xe2\\x82\\xac'"
    )
    assert result.stdout == "é\ufffd\n€"
    assert gateway.run(sandbox, "echo $X", envs={"X": "a b"}).stdout == "a b\n"


@real
def test_a_stream_carries_bytes_and_tells_failure(sandbox) -> None:
    content = b"".join(gateway.stream(sandbox, "printf '\\x00\\xff\\n'"))
    assert content == b"\x00\xff\n"
    with pytest.raises(errors.SandboxError):
        list(gateway.stream(sandbox, "echo part; exit 4"))


@real
def test_a_stream_that_is_left_ends_its_command(sandbox) -> None:
    pieces = gateway.stream(sandbox, "cat /dev/zero")
    next(pieces)
    pieces.close()
    assert gateway.run(sandbox, "pgrep -x base64").stdout == ""


@real
def test_a_machine_whose_time_is_over_is_not_woken(sandbox) -> None:
    Sandbox.objects.update(ends_at=sandbox.started_at)
    gateway.forget(sandbox)
    with pytest.raises(errors.NotReady):
        gateway.run(sandbox, "true")


@real
def test_an_old_copy_of_the_row_is_caught_up_with(sandbox) -> None:
    stale = Sandbox.objects.get()
    stale.ends_at = stale.started_at
    gateway.forget(stale)
    assert gateway.run(stale, "echo hi").stdout == "hi\n"


@real
def test_asynchronous_files_and_commands(sandbox) -> None:
    lines: list[str] = []

    async def use() -> tuple[bytes, int]:
        await gateway.write_file(sandbox, "/tmp/deep/file", b"x" * 100_000)
        head = await gateway.read_file(sandbox, "/tmp/deep/file", limit_bytes=10)
        code = await gateway.run_streamed(
            sandbox,
            "echo one; exit 3",
            cwd="/",
            envs=None,
            timeout_s=10,
            on_stdout=lines.append,
            on_stderr=lines.append,
        )
        return head, code

    assert asyncio.run(use()) == (b"x" * 10, 3)
    assert lines == ["one\n"]
