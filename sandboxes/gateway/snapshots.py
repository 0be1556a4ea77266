"""Snapshots of machines at their backend."""

from sandboxes import errors
from sandboxes.models import Sandbox

from .backends import calling, options
from .control import slow_options


def take_snapshot(sandbox: Sandbox, label: str) -> str:
    """The backend's id of a new snapshot. The machine goes on afterwards."""
    import e2b

    with calling(sandbox.backend, control=True):
        made = e2b.Sandbox.create_snapshot(
            sandbox.sandbox_id, name=label, **slow_options(sandbox.backend)
        )
    return made.snapshot_id


def find_snapshot(sandbox: Sandbox, label: str) -> str:
    """The id of the snapshot with that label, empty when there is none."""
    import e2b

    with calling(sandbox.backend, control=True):
        pages = e2b.Sandbox.list_snapshots(
            sandbox_id=sandbox.sandbox_id, **options(sandbox.backend)
        )
        while pages.has_next:
            for found in pages.next_items():
                names = (*found.names, found.snapshot_id)
                if any(label in name for name in names):
                    return found.snapshot_id
    return ""


def delete_snapshot(backend: str, snapshot_id: str) -> None:
    """Delete it; one that is gone already is no error."""
    import e2b

    try:
        with calling(backend, control=True):
            e2b.Sandbox.delete_snapshot(snapshot_id, **slow_options(backend))
    except errors.NotFound:
        return
