"""A private copy of the running Python for use inside sandboxes.

PID 1 and the file helper run on it, so no template can break or swap them, and a
template may lack Python. It is made once from the interpreter that runs now and
bound read-only at /.kode in every sandbox.
"""

import compileall
import hashlib
import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

INSIDE = Path(__file__).parent.parent / "inside"
HOME = "/.kode"
# Whatever programs of `inside/` may import; the copy holds these and what they need.
MODULES = [
    "_signal",
    "_socket",
    "array",
    "base64",
    "ctypes",
    "encodings.idna",
    "enum",
    "errno",
    "fcntl",
    "functools",
    "grp",
    "io",
    "json",
    "os",
    "posix",
    "pwd",
    "re",
    "select",
    "selectors",
    "socket",
    "stat",
    "struct",
    "sys",
    "time",
    "zlib",
]
# Run through its own loader: the template's may be another libc or none.
PYTHON_ARGV = (
    f"{HOME}/lib/ld.so",
    "--library-path",
    f"{HOME}/lib",
    f"{HOME}/bin/python3",
    "-I",
    "-S",
    "-E",
    "-B",
    "-X",
    "no_debug_ranges",
)
_INVENTORY = """
import json, sys
for name in sys.argv[1:]:
    __import__(name)
files = [getattr(m, "__file__", None) for m in list(sys.modules.values())]
# A module like collections.abc puts another one in its place.
names = [name.replace(".", "/") + ".py" for name in sys.modules]
with open("/proc/self/maps") as maps:
    mapped = {line.split()[-1] for line in maps if ".so" in line.split()[-1]}
print(json.dumps([[f for f in files if f], names, sorted(mapped)]))
"""


def build(folder: Path) -> Path:
    """The copy below `folder`, made if it is not there.

    Each version has a name of its own: sandboxes that run keep the one they have.
    """
    target = folder / f"python-{_stamp()}"
    if target.is_dir():
        return target
    draft = folder / "python.new"
    shutil.rmtree(draft, ignore_errors=True)
    _copy_python(draft)
    for source in INSIDE.glob("*.py"):
        shutil.copyfile(source, draft / source.name)
    # Compiled once for all sandboxes: a start takes a third less.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(draft, quiet=2, invalidation_mode=mode)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    return draft.rename(target)


def prune(folder: Path, used: set[str]) -> None:
    """Remove the copies that no sandbox runs on any more."""
    for path in folder.glob("python-*"):
        if path.name not in used:
            shutil.rmtree(path, ignore_errors=True)


def _stamp() -> str:
    digest = hashlib.sha256(f"{sys.version}{sys.base_prefix}{MODULES}".encode())
    for path in sorted((Path(__file__), *INSIDE.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _copy_python(draft: Path) -> None:
    """Interpreter, shared libraries with their loader, and the modules named."""
    python = Path(sys.executable).resolve()
    done = subprocess.run(
        [python, "-I", "-S", "-E", "-c", _INVENTORY, *MODULES],
        env={},
        capture_output=True,
        check=True,
    )
    modules, names, libraries = json.loads(done.stdout)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stdlib = Path(os.__file__).resolve().parent
    target = draft / "lib" / version
    target.mkdir(parents=True)
    (draft / "bin").mkdir()
    shutil.copy(python, draft / "bin" / "python3")
    # The file that Python knows its home by.
    shutil.copy(stdlib / "os.py", target / "os.py")
    (target / "lib-dynload").mkdir()
    for name in (*modules, *(str(stdlib / name) for name in names)):
        path = Path(name).resolve()
        if path.is_relative_to(stdlib) and path.is_file():
            copy = target / path.relative_to(stdlib)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    for name in libraries:
        path = Path(name)
        if not path.resolve().is_relative_to(stdlib):
            shutil.copy(path, draft / "lib" / path.name)
            _link_short_name(draft / "lib" / path.name)
            if path.name.startswith("ld-"):
                shutil.copy(path, draft / "lib" / "ld.so")
                (draft / "lib" / "ld.so").chmod(0o755)


def _link_short_name(library: Path) -> None:
    """Programs ask for `libz.so.1`; mapped is `libz.so.1.2.13`."""
    stem, _, version = library.name.partition(".so.")
    short = library.with_name(f"{stem}.so.{version.split('.')[0]}")
    if version and not short.exists():
        short.symlink_to(library.name)
