"""Throwaway PostgreSQL and Redis of a test run, started from what is installed."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.server import wait_for

START_S = 60
# Nothing here outlives the test run, so nothing has to reach a disk.
FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


def program(name: str, service: str, *folders: str) -> str:
    """A program's path; without one the test is skipped, or fails if required."""
    places = [*folders, os.environ.get("PATH", "")]
    if path := shutil.which(name, path=os.pathsep.join(places)):
        return path
    if service in os.environ.get("KODE_REQUIRE", ""):
        pytest.fail(f"no {name} here, and KODE_REQUIRE names {service}")
    pytest.skip(f"no {name} here: install {service}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_up(port: int) -> bool:
    """Whether somebody listens on the port."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL; gives the address of its empty database."""
    known = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    initdb = program("initdb", "postgres", *known)
    user = "postgres" if os.geteuid() == 0 else None
    port, folder = free_port(), tempfile.mkdtemp(prefix="kode-postgres-")
    if user:
        shutil.chown(folder, user)
    make = [initdb, "-A", "trust", "-U", "kode", "--no-sync", "-D", f"{folder}/data"]
    subprocess.run(make, user=user, check=True, capture_output=True, cwd=folder)
    server = [str(Path(initdb).with_name("postgres")), "-D", f"{folder}/data"]
    server += ["-h", "127.0.0.1", "-p", str(port), "-k", folder, *FAST.split()]
    with open(f"{folder}/log", "w") as log:
        process = subprocess.Popen(
            server, user=user, cwd=folder, stdout=log, stderr=log, process_group=0
        )
    try:
        createdb = [str(Path(initdb).with_name("createdb")), "-h", "127.0.0.1"]
        createdb += ["-p", str(port), "-U", "kode", "kode"]
        wait_for(
            lambda: subprocess.run(createdb, capture_output=True).returncode == 0,
            START_S,
        )
        yield f"postgresql://kode@127.0.0.1:{port}/kode"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """A Redis or Valkey; gives its address."""
    name = "redis-server" if shutil.which("redis-server") else "valkey-server"
    port = free_port()
    command = [program(name, "redis"), "--port", str(port), "--bind", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: is_up(port), START_S)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL of this test run."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """The address of a Redis of this test run."""
    with redis_server() as url:
        yield url
