"""The commands of `./kode`: read the arguments, run one command."""

import argparse
import sys
from pathlib import Path

from setup.errors import SetupError


def parser() -> argparse.ArgumentParser:
    """The arguments that `./kode` takes."""
    top = argparse.ArgumentParser(prog="./kode", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", allow_abbrev=False)
    up.add_argument("--host", default="127.0.0.1", help="address to listen on")
    up.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    up.add_argument("--data", type=Path, default=Path(".kode"))
    up.add_argument("--check", action="store_true", help="run one sandbox and stop")
    up.add_argument("--yes", action="store_true", help="install system packages")
    for name in ("check", "doctor", "lock"):
        commands.add_parser(name, allow_abbrev=False)
    return top


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit code. Imports only what it needs."""
    if arguments[:1] == ["test"]:
        from setup import testing

        return testing.run(arguments[1:])
    options = parser().parse_args(arguments)
    if options.command == "up":
        from setup import up

        return up.run(options)
    if options.command == "check":
        from setup import checks

        return checks.run()
    if options.command == "lock":
        from setup import locks

        return locks.run()
    from setup import doctor

    return doctor.run()


def main() -> int:
    """Run, and say an expected failure in one line."""
    try:
        return run(sys.argv[1:])
    except SetupError as error:
        print(f"kode: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
