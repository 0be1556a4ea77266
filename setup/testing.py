"""`./kode test`: everything that the tests need, then pytest."""

import os
import subprocess
import sys

from setup import assets, machine


def run(arguments: list[str]) -> int:
    """Run pytest with the arguments; returns its exit code."""
    yes = "--yes" in arguments
    arguments = [word for word in arguments if word != "--yes"]
    may_install = yes or bool(os.environ.get("CI"))
    machine.ensure((*machine.RUNTIME, *machine.TESTS), may_install=may_install)
    assets.build()
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command).returncode
