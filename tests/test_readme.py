"""The README tells the truth: commands, settings, dependencies, folders."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from setup import variables

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
NAME = re.compile(r"^[A-Za-z0-9-]+")


def section(heading: str) -> str:
    _, found, rest = README.partition(f"\n## {heading}\n")
    assert found, f"no section {heading}"
    return rest.partition("\n## ")[0]


def first_column(heading: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)`", section(heading), re.MULTILINE))


def test_two_commands_come_first() -> None:
    block = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert block is not None
    commands = [line.split("#")[0].split() for line in block[1].splitlines()]
    assert commands == [["./kode", "up"], ["./kode", "test"]]


def test_settings_are_all_there_and_no_others() -> None:
    assert variables.complaint() == ""


def test_no_variable_is_read_past_the_settings() -> None:
    known = variables.in_readme("Settings") | variables.in_readme("Tools")
    pattern = re.compile(r"""(?:environ(?:\.get)?|getenv)[\[(]["'](KODE_\w+)""")
    code = [
        path
        for folder in ("kode_web", "sandboxes", "agents", "tests", "bench")
        for path in (ROOT / folder).rglob("*.py")
    ]
    used = {name for path in code for name in pattern.findall(path.read_text())}
    assert {name for name in used if not name.startswith("KODE_TEST_")} <= known


def test_each_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    browser = json.loads((ROOT / "package.json").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(name for group in project["dependency-groups"].values() for name in group),
    ]
    names = {match[0] for line in wanted if (match := NAME.match(line))}
    names |= {*browser["dependencies"], *browser["devDependencies"]}
    assert first_column("Dependencies") == names


@pytest.mark.parametrize("command", sorted(set(re.findall(r"\./kode (\w+)", README))))
def test_each_command_exists(command: str) -> None:
    usage = subprocess.run(["./kode", "help"], cwd=ROOT, capture_output=True, text=True)
    assert f"\n  {command} " in usage.stdout


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`(--\w+)", README))))
def test_each_flag_exists(flag: str) -> None:
    command = [sys.executable, "-m", "setup", "up", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert flag in done.stdout


def test_the_map_names_real_folders() -> None:
    rows = re.findall(r"^\| (`.+?) \|", section("Map"), re.MULTILINE)
    folders = [name for row in rows for name in re.findall(r"`([\w/]+/)`", row)]
    assert folders
    assert [name for name in folders if not (ROOT / name).is_dir()] == []


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures
    assert [path for path in pictures if not (ROOT / path).is_file()] == []


def test_manage_commands_exist() -> None:
    for command in set(re.findall(r"manage\.py (\w+)", README)) - {
        "migrate",
        "runserver",
    }:
        assert list(ROOT.glob(f"*/**/management/commands/{command}.py")), command
