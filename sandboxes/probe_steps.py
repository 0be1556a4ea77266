"""The calls of a probe: each does one thing for real and says what came of it."""

import asyncio
import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from . import gateway
from .errors import Gone, NotFound, SandboxError, TimedOut
from .gateway import Machine
from .models import Sandbox, State

LIFE_S = 60
FOLDER = "/tmp/kode-probe"
PATH = f"{FOLDER}/sum.txt"
TEXT = "what was written\n"
PORT = 8765
PATIENCE_S = 15.0
COMMAND_S = 20.0


@dataclass
class Bench:
    """What the steps work on: a machine without a row, and what else was made."""

    name: str
    code: str
    box: Sandbox
    snapshots: list[str] = field(default_factory=list)
    is_asked: bool = False

    @classmethod
    def at(cls, name: str, code: str) -> "Bench":
        """For a backend; `code` marks the machine as this probe's."""
        box = Sandbox(
            backend=name,
            op_id=code,
            timeout_s=LIFE_S,
            metadata={"made-by": "probe"},
            name="probe",
        )
        return cls(name, code, box)

    def take(self, machine: Machine) -> None:
        """Follow the machine as it is now."""
        self.box.sandbox_id, self.box.ends_at = machine.sandbox_id, machine.ends_at
        self.box.state = State.PAUSED if machine.state == "paused" else State.RUNNING


class Wrong(SandboxError):
    """The backend answered, but not what it should have."""


@dataclass(frozen=True)
class Step:
    """One call. `needs` are the keys of steps without which it makes no sense;
    an optional one may be missing at a backend."""

    key: str
    words: str
    call: Callable[[Bench], str]
    needs: tuple[str, ...] = ()
    is_optional: bool = False


def _list(bench: Bench) -> str:
    return f"{len(gateway.machines(bench.name))} of this installation"


def _templates(bench: Bench) -> str:
    return f"{len(gateway.templates(bench.name))} listed"


def _create(bench: Bench) -> str:
    bench.is_asked = True
    bench.take(gateway.create(bench.box))
    return f"{bench.box.sandbox_id}, for {LIFE_S} s"


def _info(bench: Bench) -> str:
    machine = gateway.info(bench.box)
    if machine.metadata.get("made-by") != "probe":
        raise Wrong("The labels that were given are not there.")
    bench.take(machine)
    return f"{machine.state}, made from {machine.template}, labels kept"


def _find(bench: Bench) -> str:
    found = gateway.machines(bench.name, {gateway.OP_KEY: bench.code})
    if [machine.sandbox_id for machine in found] != [bench.box.sandbox_id]:
        raise Wrong(f"{len(found)} found by its label; it should be this one.")
    return "found by its label"


def _exec(bench: Bench) -> str:
    result = gateway.run(bench.box, "echo $((6 * 7)); exit 3", timeout_s=COMMAND_S)
    if (result.stdout.strip(), result.exit_code) != ("42", 3):
        raise Wrong(f"Exit code {result.exit_code}, output {result.stdout[:80]!r}.")
    return "output and exit code are right"


def _terminal(bench: Bench) -> str:
    asyncio.run(_typed(bench.box))
    return "typed, and read the answer"


async def _typed(box: Sandbox) -> None:
    """Type into a shell until its answer is read."""
    seen, answered = bytearray(), asyncio.Event()

    async def on_data(data: bytes) -> None:
        seen.extend(data)
        if b"sum-42" in seen:
            answered.set()

    pty = await gateway.open_pty(box, on_data, rows=24, cols=80, envs={})
    try:
        await pty.send(b"echo sum-$((6 * 7))\n")
        async with asyncio.timeout(PATIENCE_S):
            await answered.wait()
    except TimeoutError as error:
        raise TimedOut("The terminal did not answer what was typed.") from error
    finally:
        with contextlib.suppress(SandboxError):
            await pty.kill()
        await pty.close()


def _write(bench: Bench) -> str:
    gateway.upload(bench.box, PATH, io.BytesIO(TEXT.encode()))
    return f"{len(TEXT)} bytes"


def _read(bench: Bench) -> str:
    found = b"".join(gateway.download(bench.box, PATH))
    if found != TEXT.encode():
        raise Wrong(f"Another content came back: {found[:80]!r}.")
    return "the same bytes came back"


def _folder(bench: Bench) -> str:
    names = gateway.names(bench.box, FOLDER)
    if names != ["sum.txt"]:
        raise Wrong(f"It lists {names[:5]}.")
    return "lists what was written"


def _port(bench: Bench) -> str:
    serve = f"cd {FOLDER} && nohup python3 -m http.server {PORT} >/dev/null 2>&1 &"
    gateway.run(bench.box, serve, timeout_s=COMMAND_S)
    target = gateway.target(bench.box, PORT)
    until, said = time.monotonic() + PATIENCE_S, "nothing"
    while time.monotonic() < until:
        try:
            answer = httpx.get(
                f"{target.url}/sum.txt", headers=target.headers, timeout=5
            )
        except httpx.HTTPError as error:
            said = type(error).__name__
        else:
            if answer.status_code == 200 and answer.text == TEXT:
                return f"{target.headers['host']} serves it"
            said = str(answer.status_code)
        time.sleep(0.2)
    raise TimedOut(f"Port {PORT} of a server inside answered {said}.")


def _timeout(bench: Bench) -> str:
    before = gateway.info(bench.box).ends_at
    gateway.set_timeout(bench.box, 2 * LIFE_S)
    machine = gateway.info(bench.box)
    if machine.ends_at <= before:
        raise Wrong("Its end did not move.")
    bench.take(machine)
    return f"ends {(machine.ends_at - before).total_seconds():.0f} s later"


def _metrics(bench: Bench) -> str:
    samples = gateway.metrics(bench.box)
    return f"{len(samples)} samples" if samples else "none measured yet"


def _snapshot(bench: Bench) -> str:
    snapshot_id = gateway.take_snapshot(bench.box, f"kode-probe-{bench.code}")
    bench.snapshots.append(snapshot_id)
    return snapshot_id


def _drop(bench: Bench) -> str:
    gateway.delete_snapshot(bench.name, bench.snapshots[-1])
    bench.snapshots.pop()
    return ""


def _pause(bench: Bench) -> str:
    gateway.pause(bench.box)
    bench.take(gateway.info(bench.box))
    if bench.box.state != State.PAUSED:
        raise Wrong("It says that it still runs.")
    return ""


def _resume(bench: Bench) -> str:
    bench.take(gateway.resume(bench.box, LIFE_S))
    result = gateway.run(bench.box, f"cat {PATH}", timeout_s=COMMAND_S)
    if result.stdout != TEXT:
        raise Wrong("The files of before are not there.")
    return "its files are there again"


def _kill(bench: Bench) -> str:
    gateway.kill(bench.box)
    try:
        gateway.info(bench.box)
    except (Gone, NotFound):
        bench.is_asked = False
        return "and gone"
    raise Wrong("It is still there.")


ALIVE = ("create", "info")
STEPS = (
    Step("list", "List sandboxes", _list),
    Step("templates", "List templates", _templates, is_optional=True),
    Step("create", "Create a sandbox", _create, ("list",)),
    Step("info", "Read its state", _info, ("create",)),
    Step("find", "Find it by a label", _find, ("create",)),
    Step("exec", "Run a command", _exec, ALIVE),
    Step("terminal", "Open a terminal", _terminal, ALIVE),
    Step("write", "Write a file", _write, ALIVE),
    Step("read", "Read a file", _read, ("write",)),
    Step("folder", "List a folder", _folder, ("write",)),
    Step("port", "Reach a port", _port, ("exec", "write")),
    Step("timeout", "Change its end", _timeout, ALIVE, is_optional=True),
    Step("metrics", "Read what it uses", _metrics, ALIVE, is_optional=True),
    Step("snapshot", "Take a snapshot", _snapshot, ALIVE, is_optional=True),
    Step("drop", "Delete a snapshot", _drop, ("snapshot",), is_optional=True),
    Step("pause", "Pause it", _pause, ALIVE, is_optional=True),
    Step("resume", "Resume it", _resume, ("pause", "write"), is_optional=True),
    Step("kill", "Dispose it", _kill, ("create",)),
)


def clean_up(bench: Bench) -> str:
    """End what is left; what could not be ended, in words. Never raises ours."""
    left = []
    for snapshot_id in bench.snapshots:
        try:
            gateway.delete_snapshot(bench.name, snapshot_id)
        except SandboxError as error:
            left.append(f"The snapshot {snapshot_id} is left there: {error}")
    try:
        for sandbox_id in _machines_of(bench):
            gateway.kill(Sandbox(backend=bench.name, sandbox_id=sandbox_id))
    except SandboxError as error:
        left.append(f"Its sandbox may be left there for a few minutes: {error}")
    return " ".join(left)[:500]


def _machines_of(bench: Bench) -> list[str]:
    """Of this probe, also one whose answer to the create call was lost."""
    if not bench.is_asked:
        return []
    if bench.box.sandbox_id:
        return [bench.box.sandbox_id]
    found = gateway.machines(bench.name, {gateway.OP_KEY: bench.code})
    return [m.sandbox_id for m in found if m.metadata.get(gateway.OP_KEY) == bench.code]
