"""Listening ports, found inside a real sandbox."""

from datetime import UTC, datetime, timedelta

import pytest

from sandboxes import gateway, ports
from sandboxes.ports import Port, parse
from tests.local.server import wait_for

LINE = "   {}: 0100007F:{:04X} 00000000:0000 {} 00000000:00000000 00:00000000 00000000  1000        0 {} 1 0000000000000000 100 0 0 10 0"  # noqa: E501  as the kernel writes it


@pytest.mark.django_db(transaction=True)
def test_servers_are_found_by_port_process_and_age(sandbox) -> None:
    for command in ("python3 -m http.server 8000", "python3 -m http.server 8001 -b ::"):
        gateway.run(sandbox, f"nohup {command} >/dev/null 2>&1 &")
    wait_for(lambda: len(ports.listening(sandbox)) == 2, 20)
    found = ports.listening(sandbox)
    assert [(p.number, p.process) for p in found] == [
        (8000, "python3"),
        (8001, "python3"),
    ]
    pid = int(gateway.run(sandbox, "pgrep -f 'server 8000'").stdout.split()[0])
    assert found[0].pid == pid
    age = datetime.now(UTC) - found[0].since
    assert timedelta(seconds=-5) < age < timedelta(minutes=2)


@pytest.mark.django_db(transaction=True)
def test_a_sandbox_that_cannot_be_asked_has_no_ports(sandbox) -> None:
    sandbox.state = "paused"
    assert ports.listening_or_none(sandbox) == []


def test_one_port_on_two_addresses_is_one() -> None:
    text = "\n".join(LINE.format(n, 3000, "0A", 50 + n) for n in range(2))
    assert parse(text) == [Port(3000, "", 0)]


def test_connections_and_our_own_helper_are_left_out() -> None:
    lines = [LINE.format(0, 5000, "01", 50), LINE.format(1, 49983, "0A", 51)]
    assert parse("\n".join(lines)) == []


@pytest.mark.parametrize(
    "line",
    [
        "L",
        "0: :ZZZZ 0A",
        LINE.format(0, 3000, "0A", "9" * 400),
        "S /proc/x/fd/1 socket:[5]",
        "T /proc/1 99999999999999999999",
        "/proc/1/comm:",
        "\x00\xff",
    ],
)
def test_odd_lines_are_left_out(line: str) -> None:
    good = LINE.format(0, 3000, "0A", 50)
    assert parse(f"{line}\n{good}\nS /proc/7/fd/3 socket:[50]\n/proc/7/comm:a b") == [
        Port(3000, "a b", 7)
    ]


def test_a_flood_is_cut() -> None:
    lines = [LINE.format(n, 1024 + n, "0A", n) for n in range(5000)]
    assert len(parse("\n".join(lines))) == ports.MAX_PORTS
