"""The commands of `./kode`: read the arguments, run one command."""

import argparse
import sys
from pathlib import Path

from setup.errors import SetupError


def parse(command: str, arguments: list[str]) -> argparse.Namespace:
    """The command's arguments; ends the program on a wrong one."""
    parser = argparse.ArgumentParser(prog=f"./kode {command}", allow_abbrev=False)
    if command == "up":
        add = parser.add_argument
        add("--host", default="127.0.0.1", help="address to listen on")
        add("--port", type=int, default=8000, help="port to listen on; 0: a free one")
        add("--data", type=Path, default=Path(".kode"), help="folder for what stays")
        add("--check", action="store_true", help="run one command in a sandbox, stop")
        add("--yes", action="store_true", help="as root: install system packages")
    return parser.parse_args(arguments)


def run(command: str, arguments: list[str]) -> int:
    """Run one command; returns the exit code. Imports only what it needs."""
    if command == "test":
        from setup import testing

        return testing.run(arguments)
    options = parse(command, arguments)
    if command == "up":
        from setup import up

        return up.run(options)
    if command == "check":
        from setup import checks

        return checks.run()
    if command == "lock":
        from setup import locks

        return locks.run()
    from setup import doctor

    return doctor.run()


def main() -> int:
    """Run, and say an expected failure in one line."""
    try:
        return run(sys.argv[1], sys.argv[2:])
    except SetupError as error:
        print(f"kode: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
