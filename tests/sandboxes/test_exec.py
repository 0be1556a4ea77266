"""One-off commands: run, watched, killed, written down; real ones in a real sandbox."""

import json
import time
from datetime import timedelta

import pytest
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from kode_web.asgi import application
from sandboxes import exec, gateway, ledger
from sandboxes.models import Command, CommandOutput, Event

from .sockets import session_of

pytestmark = pytest.mark.django_db(transaction=True)
WAIT_S = 60


def until(condition) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.05)


def ended(command: Command) -> Command:
    def is_over() -> bool:
        command.refresh_from_db()
        return not command.is_running

    until(is_over)
    return command


def run(house, sandbox, text: str, *, limited: bool = True, **fields) -> Command:
    return exec.start(house.bob, sandbox, text, key="", limited=limited, **fields)


def text_of(command: Command, *streams: str) -> str:
    pieces = exec.output(command)
    return "".join(p.text for p in pieces if not streams or p.stream in streams)


def test_output_exit_code_and_time_are_written_down(house, sandbox) -> None:
    command = ended(run(house, sandbox, "echo one; echo two >&2; pwd; exit 3", cwd="/"))
    assert (command.ending, command.exit_code) == ("exited", 3)
    assert text_of(command, "out") == "one\n/\n"
    assert text_of(command, "err") == "two\n"
    assert command.seconds < WAIT_S
    kinds = Event.objects.filter(kind__startswith="command.").values_list("kind")
    assert sorted(kinds) == [("command.ended",), ("command.started",)]


def test_the_same_form_twice_runs_one_command(house, sandbox) -> None:
    once = exec.start(house.bob, sandbox, "echo x >> /tmp/n", key="k", limited=True)
    twice = exec.start(house.bob, sandbox, "echo x >> /tmp/n", key="k", limited=True)
    assert once == twice
    ended(once)
    assert gateway.run(sandbox, "wc -l < /tmp/n").stdout.strip() == "1"


def test_a_killed_command_ends_with_all_it_started(house, sandbox) -> None:
    command = run(house, sandbox, "sleep 987 & sleep 986; echo never")
    until(lambda: Command.objects.get(pk=command.pk).pid)
    command.refresh_from_db()
    exec.kill(house.bob, command)
    ended(command)
    assert (command.ending, command.killed_by) == ("killed", house.bob)
    left = gateway.run(sandbox, "pgrep -f 'sleep 98[67]' || true", user="root").stdout
    assert left == ""


def test_a_command_that_takes_too_long_is_ended(house, sandbox) -> None:
    sandbox.command_timeout_s = 1
    sandbox.save()
    command = ended(run(house, sandbox, "echo begun; sleep 985"))
    assert command.ending == "timed out"
    assert text_of(command) == "begun\n"
    gone = "! pgrep -f 'sleep 98[5]'"
    until(lambda: gateway.run(sandbox, gone, user="root").exit_code == 0)


def test_a_command_without_limit_outlives_it(house, sandbox) -> None:
    sandbox.command_timeout_s = 1
    sandbox.save()
    command = ended(run(house, sandbox, "sleep 2; echo done", limited=False))
    assert (command.ending, text_of(command)) == ("exited", "done\n")


def test_a_missing_folder_is_said(house, sandbox) -> None:
    command = ended(run(house, sandbox, "true", cwd="/not/there"))
    assert command.ending == "failed"
    assert "/not/there" in command.error


def test_much_output_is_kept_at_both_ends(house, sandbox, monkeypatch) -> None:
    monkeypatch.setattr(ledger, "HEAD_CHARS", 10_000)
    monkeypatch.setattr(ledger, "TAIL_CHARS", 5_000)
    command = ended(run(house, sandbox, "seq 100000"))
    text = text_of(command)
    assert text.startswith("1\n2\n3\n")
    assert text.endswith("99999\n100000\n")
    assert "characters are not kept" in text
    assert len(text) < 16_000
    assert command.left_out == 588_895 - 15_000


def test_terminal_sequences_are_not_kept(house, sandbox) -> None:
    command = ended(
        run(house, sandbox, r"printf '\033[31mred\033[m \033]0;t\007end\n'")
    )
    assert text_of(command) == "red end\n"


def unseen(command: Command) -> None:
    """As after the death of the process that followed it."""
    Command.objects.filter(pk=command.pk).update(
        seen_at=timezone.now() - timedelta(minutes=5)
    )


def begun_by_another_process(house, sandbox, text: str) -> Command:
    """A command that runs in the sandbox and is followed by nobody."""
    command = ledger.begin(sandbox, text, actor=house.bob, timeout_s=0)
    handle = gateway.box(sandbox).commands.run(text, background=True, timeout=0)
    command.pid = handle.pid
    command.save()
    handle.disconnect()
    unseen(command)
    return command


def test_a_command_nobody_follows_is_taken_up_again(house, sandbox) -> None:
    text = "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo later; exit 4"
    command = begun_by_another_process(house, sandbox, text)
    exec.recover()
    until(lambda: CommandOutput.objects.filter(command=command).exists())
    exec.recover()  # it is followed now: nothing happens
    gateway.run(sandbox, "touch /tmp/go")
    ended(command)
    assert (command.ending, command.exit_code) == ("exited", 4)
    assert text_of(command, "out") == "later\n"
    assert text_of(command).count("nobody followed it") == 1


def test_a_command_that_ended_unseen_is_lost_and_not_run_again(house, sandbox) -> None:
    text = "echo x >> /tmp/count"
    command = ledger.begin(sandbox, text, actor=house.bob, pid=999_999)
    unseen(command)
    exec.recover()
    ended(command)
    assert command.ending == "lost"
    assert "not known" in command.error
    assert gateway.run(sandbox, "cat /tmp/count").exit_code != 0


def test_commands_of_a_sandbox_that_ended_are_closed(house, sandbox) -> None:
    command = ledger.begin(sandbox, "sleep 1", actor=house.bob, pid=5)
    unseen(command)
    type(sandbox).objects.filter(pk=sandbox.pk).update(state="gone")
    exec.recover()
    command.refresh_from_db()
    assert command.ending == "lost"


@pytest.fixture
def command(house, sandbox) -> Command:
    """One that has ended."""
    row = ledger.begin(sandbox, "echo '<b>é'", actor=house.bob)
    CommandOutput.objects.create(command=row, at=0, stream="out", text="<b>é\n")
    ledger.finish(row, ledger.Ending.EXITED, exit_code=0)
    row.refresh_from_db()
    return row


def test_a_viewer_reads_and_a_stranger_finds_nothing(house, command) -> None:
    codes = command.sandbox.code, command.code
    pages = [
        reverse("sandboxes:exec", args=codes[:1]),
        reverse("sandboxes:command", args=codes),
        reverse("sandboxes:command_output", args=codes),
    ]
    client = Client()
    for person, status in ((house.victor, 200), (house.charlie, 404)):
        client.force_login(person)
        assert [client.get(at).status_code for at in pages] == [status] * 3


def test_output_is_text_on_the_page_and_in_the_file(house, command) -> None:
    codes = command.sandbox.code, command.code
    client = Client()
    client.force_login(house.victor)
    page = client.get(reverse("sandboxes:command", args=codes)).content.decode()
    assert "&lt;b&gt;é" in page
    assert "<b>é" not in page
    file = client.get(reverse("sandboxes:command_output", args=codes))
    assert file.content.decode() == "<b>é\n"
    assert file["Content-Disposition"].startswith("attachment")


def test_only_who_may_type_runs_and_kills(house, sandbox, command) -> None:
    client = Client()
    for person, status in ((house.victor, 403), (house.charlie, 404)):
        client.force_login(person)
        at = reverse("sandboxes:exec", args=[sandbox.code])
        assert client.post(at, {"text": "true"}).status_code == status
        at = reverse("sandboxes:kill_command", args=[sandbox.code, command.code])
        assert client.post(at).status_code == status
    assert sandbox.commands.count() == 1


@pytest.mark.parametrize("text", ["", "  ", "x" * 16_001])
def test_what_is_no_command_is_refused(house, sandbox, text: str) -> None:
    client = Client()
    client.force_login(house.bob)
    at = reverse("sandboxes:exec", args=[sandbox.code])
    assert client.post(at, {"text": text}).status_code == 400
    assert not sandbox.commands.exists()


@pytest.mark.parametrize(
    ("query", "found"),
    [("show=failed", 0), ("show=people", 1), ("show=agents", 0), ("q=echo", 1)],
)
def test_the_ledger_is_filtered(house, command, query: str, found: int) -> None:
    client = Client()
    client.force_login(house.victor)
    at = reverse("sandboxes:exec", args=[command.sandbox.code])
    assert len(client.get(f"{at}?{query}").context["commands"]) == found


async def test_a_socket_follows_from_where_one_was(house, sandbox) -> None:
    text = "echo one; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo two"
    command = await database_sync_to_async(run)(house, sandbox, text)
    headers = [(b"host", settings.SITE.netloc.encode())]
    headers.append((b"origin", settings.SITE_URL.encode()))
    key = await database_sync_to_async(session_of)(house.victor)
    headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode()))
    path = f"/ws/sandboxes/{sandbox.code}/commands/{command.code}/?after=2"
    socket = WebsocketCommunicator(application, path, headers)
    await socket.connect(WAIT_S)
    run_in = database_sync_to_async(gateway.run, thread_sensitive=False)
    await run_in(sandbox, "touch /tmp/go")
    seen = ""
    while (event := await socket.receive_output(WAIT_S))["type"] == "websocket.send":
        seen += json.loads(event["text"]).get("d", "")
    assert event["code"] == 4410
    assert seen == "e\ntwo\n"
    await socket.disconnect()
