"""The only door to a backend: every call of the `e2b` SDK is in this package.

A backend is a name in `backends()` and its connection options; the local runtime,
E2B's cloud and any E2B-compatible cluster differ in nothing else. Whatever goes
wrong leaves this package as a `sandboxes.errors.SandboxError`.

The SDK takes half a second to import, so it is imported at the first call.

    backends.py    which there are, their errors, the breaker
    control.py     make, find, change and end machines
    boxes.py       connections to machines
    commands.py    run commands, stream their output, terminals
    direct.py      terminals of the local runtime, past the SDK
    storage.py     files
    snapshots.py   snapshots
    usage.py       what machines use
    trial.py       a backend tried out before it is one
"""

from .backends import (
    Backend,
    Breaker,
    backend,
    backends,
    backends_of,
    breaker,
    choose,
    forget_rows,
    translate,
)
from .boxes import Target, box, forget, open_box, target
from .commands import (
    USER,
    Pty,
    Result,
    kill_process,
    open_pty,
    rejoin_streamed,
    reopen_pty,
    run,
    run_streamed,
    stream,
)
from .control import (
    INSTANCE_KEY,
    OP_KEY,
    Machine,
    Status,
    build_base,
    create,
    info,
    kill,
    machines,
    pause,
    report,
    resume,
    set_timeout,
    status,
    statuses,
    templates,
)
from .direct import DirectPty
from .prompt import at_once
from .snapshots import delete_snapshot, find_snapshot, take_snapshot
from .storage import (
    Watch,
    download,
    make_dir,
    move,
    names,
    read_file,
    remove,
    upload,
    watch,
    write_file,
)
from .trial import try_out
from .usage import Sample, metrics

__all__ = [
    "INSTANCE_KEY",
    "OP_KEY",
    "USER",
    "Backend",
    "Breaker",
    "DirectPty",
    "Machine",
    "Pty",
    "Result",
    "Sample",
    "Status",
    "Target",
    "Watch",
    "at_once",
    "backend",
    "backends",
    "backends_of",
    "box",
    "breaker",
    "build_base",
    "choose",
    "create",
    "delete_snapshot",
    "download",
    "find_snapshot",
    "forget",
    "forget_rows",
    "info",
    "kill",
    "kill_process",
    "machines",
    "make_dir",
    "metrics",
    "move",
    "names",
    "open_box",
    "open_pty",
    "pause",
    "read_file",
    "rejoin_streamed",
    "remove",
    "reopen_pty",
    "report",
    "resume",
    "run",
    "run_streamed",
    "set_timeout",
    "status",
    "statuses",
    "stream",
    "take_snapshot",
    "target",
    "templates",
    "translate",
    "try_out",
    "upload",
    "watch",
    "write_file",
]
