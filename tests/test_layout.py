"""The house keeps its shape: who imports whom, sizes, and no foreign addresses."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("kode_web", "sandboxes", "agents")
# Lines; a file or function at its limit is due to be split.
FILE_LINES = 400
FUNCTION_LINES = 60
GENERATED = re.compile(
    r"(^|/)(migrations|node_modules|dist)/|/proto/\w+_(pb|connect)\.py"
)

# Modules that every app may use; they themselves may use teams alone.
SHARED = ("kode_web.environment", "kode_web.shortcuts", "kode_web.sockets")
# App -> the packages of ours that it may import, besides the shared modules.
ARROWS = {
    "kode_web.teams": ("kode_web.teams",),
    "sandboxes": ("kode_web.teams", "sandboxes"),
    "agents": ("kode_web.teams", "sandboxes", "agents"),
}
# Library -> the only modules or packages that may import it.
ONLY_IN = {
    "e2b": ("sandboxes.gateway",),
    "pydantic_ai": ("agents.model", "agents.runner", "agents.store"),
}
NOT_IN_RUNTIME = ("django", "channels", "e2b", "allauth", "kode_web", "agents")
SAFE_ADDRESSES = ("http://www.w3.org/",)
FOREIGN = re.compile(r"""https?://[^\s"'`)<]+|(?:src|href)=["']//[^"']+""")


def sources(*patterns: str) -> list[Path]:
    """Our own files that match, without generated ones."""
    paths = (path for pattern in patterns for path in sorted(ROOT.glob(pattern)))
    return [path for path in paths if not GENERATED.search(name(path))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in packages)


def module_name(path: Path) -> str:
    return name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, relative ones resolved.

    `from a.b import c` counts as `a.b.c`, which is within `a.b` as well.
    """
    parts = name(path).removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def app_of(path: Path) -> str | None:
    """The app a file belongs to; None for the project and the runtime."""
    if name(path).startswith("sandboxes/local/"):
        return None
    return next((app for app in ARROWS if within(module_name(path), (app,))), None)


@pytest.mark.parametrize("app", ARROWS)
def test_imports_follow_the_arrows(app: str) -> None:
    allowed = (*ARROWS[app], *SHARED)
    wrong = [
        f"{name(path)} imports {module}"
        for path in sources(f"{app.replace('.', '/')}/**/*.py")
        if app_of(path) == app
        for module in imports(path)
        if within(module, PACKAGES) and not within(module, allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("module", SHARED)
def test_shared_modules_know_teams_alone(module: str) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not path.exists():
        pytest.fail(f"{module} is gone: take it out of SHARED")
    allowed = ("kode_web.teams", *SHARED)
    wrong = [m for m in imports(path) if within(m, PACKAGES) and not within(m, allowed)]
    assert wrong == []


def test_the_runtime_is_a_program_of_its_own() -> None:
    wrong = [
        f"{name(path)} imports {module}"
        for path in sources("sandboxes/local/**/*.py")
        for module in imports(path)
        if within(module, NOT_IN_RUNTIME)
        or (within(module, ("sandboxes",)) and not within(module, ("sandboxes.local",)))
    ]
    assert wrong == []


def test_nobody_imports_the_runtime() -> None:
    wrong = [
        name(path)
        for path in sources("*.py", *(f"{one}/**/*.py" for one in PACKAGES))
        if not name(path).startswith("sandboxes/local/")
        and any(within(module, ("sandboxes.local",)) for module in imports(path))
    ]
    assert wrong == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_one_door(library: str) -> None:
    code = sources(*(f"{package}/**/*.py" for package in PACKAGES))
    users = {
        module_name(path)
        for path in code
        if any(within(module, (library,)) for module in imports(path))
    }
    assert {user for user in users if not within(user, ONLY_IN[library])} == set()


def test_files_stay_small() -> None:
    code = [f"{one}/**/*.py" for one in (*PACKAGES, "setup", "tests", "bench")]
    lengths = {
        name(path): len(path.read_text().splitlines())
        for path in sources("*.py", *code, "static/js/**/*.js", "tests/**/*.js")
    }
    assert {file: n for file, n in lengths.items() if n >= FILE_LINES} == {}


def test_functions_stay_small() -> None:
    code = (f"{one}/**/*.py" for one in (*PACKAGES, "setup", "tests", "bench"))
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in sources("*.py", *code)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES
    ]
    assert long == []


def test_pages_load_nothing_from_elsewhere() -> None:
    wrong = [
        f"{name(path)}: {address}"
        for path in sources("templates/**/*", "static/**/*")
        if path.is_file()
        for address in FOREIGN.findall(path.read_text())
        if not address.startswith(SAFE_ADDRESSES)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-dev.lock", "package-lock.json"]
)
def test_lock_files_hold_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert re.findall(r'https?://\S+|"resolved"', text) == []
    assert "sha256:" in text or '"integrity": "sha512-' in text
