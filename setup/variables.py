"""The environment variables: those the code reads against those in the README."""

import ast
import re
from pathlib import Path

SETTINGS = Path("kode_web/settings.py")
README = Path("README.md")
READERS = {"env_str", "env_bool", "env_int", "env_list", "env_secret"}
ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]*)`", re.MULTILINE)


def read_by_settings(source: str | None = None) -> set[str]:
    """The names that `settings.py` asks its env_* functions for."""
    tree = ast.parse(SETTINGS.read_text() if source is None else source)
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in READERS
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def in_readme(heading: str) -> set[str]:
    """The names in the first column of the table under a README heading."""
    _, found, rest = README.read_text().partition(f"\n## {heading}\n")
    section = rest.partition("\n## ")[0]
    return set(ROW.findall(section)) if found else set()


def complaint() -> str:
    """What the README lacks or has too much; empty when they agree."""
    read, told = read_by_settings(), in_readme("Settings")
    lines = [f"{name} is not in the README" for name in sorted(read - told)]
    lines += [f"{name} is read by nothing" for name in sorted(told - read)]
    return "\n".join(lines)
