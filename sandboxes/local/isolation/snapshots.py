"""Snapshots: the files of sandboxes, kept as layers for others to start from.

A layer is what its sandbox had changed. It lies over the layers which that sandbox
had started from, and those over a base tree; so taking one copies only changes, and
starting from one copies nothing. A removed layer goes when nothing stands on it.
"""

import asyncio
import errno
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sandboxes.local.contract import BoxGone

from . import copying
from .kept import Kept
from .removal import Trash

MAX_LAYERS = 48  # names of all must fit into a page for mount(2)


@dataclass
class Layer:
    """The content of `snapshot.json`: what lies below, the nearest first."""

    tree: str
    below: list[str] = field(default_factory=list)
    removed: bool = False


class Snapshots:
    """All layers, each a folder `<id>` with `upper` and `snapshot.json`."""

    def __init__(self, folder: Path, trash: Trash, stopped: threading.Event) -> None:
        self._folder, self._trash, self._stopped = folder, trash, stopped
        self._layers: dict[str, Layer] = {}
        self._taking: set[str] = set()

    def start(self) -> None:
        """Read what is there, and remove what was never finished."""
        self._folder.mkdir(exist_ok=True, mode=0o700)
        for path in list(self._folder.iterdir()):
            try:
                data = json.loads((path / "snapshot.json").read_text())
                self._layers[path.name] = Layer(**data)
            except (OSError, ValueError, TypeError):
                self._trash.put(path)

    def all(self) -> list[str]:
        """Ids of the snapshots that are not removed."""
        return sorted(name for name, it in self._layers.items() if not it.removed)

    def trees(self) -> set[str]:
        """The versions of base trees that layers lie on."""
        return {layer.tree for layer in self._layers.values()}

    def base(self, snapshot_id: str) -> tuple[str, list[str]]:
        """What a sandbox made from a snapshot stands on: a tree and layers."""
        layer = self._layers.get(snapshot_id)
        if layer is None or layer.removed:
            raise BoxGone("There is no such snapshot.")
        return layer.tree, [snapshot_id, *layer.below]

    def paths(self, layers: Iterable[str]) -> list[Path]:
        """The folders of layers."""
        return [self._folder / layer / "upper" for layer in layers]

    async def take(
        self, snapshot_id: str, upper: Path, kept: Kept, check: Callable[[], object]
    ) -> None:
        """Keep a sandbox's changed files as a new snapshot.

        `check` raises when the sandbox ended meanwhile. Raises that, and OSError.
        """
        if snapshot_id in self._layers or snapshot_id in self._taking:
            raise OSError(errno.EEXIST, "There is a snapshot of this id already.")
        if len(kept.layers) >= MAX_LAYERS:
            problem = f"It stands on {MAX_LAYERS} snapshots already. Start anew."
            raise OSError(errno.EMLINK, problem)
        folder = self._folder / snapshot_id
        self._taking.add(snapshot_id)
        try:
            folder.mkdir(mode=0o700)
            target = folder / "upper"
            await asyncio.to_thread(copying.copy, upper, target, self._stopped)
            check()
            self._write(snapshot_id, Layer(kept.tree, list(kept.layers)))
        except (OSError, BoxGone):
            self._trash.put(folder)
            raise
        finally:
            self._taking.discard(snapshot_id)

    def remove(self, snapshot_id: str) -> None:
        """Let nothing start from it any more; idempotent."""
        layer = self._layers.get(snapshot_id)
        if layer is not None and not layer.removed:
            layer.removed = True
            self._write(snapshot_id, layer)

    def prune(self, used: set[str]) -> None:
        """Remove the files of removed layers that nothing stands on."""
        kept = [layer for layer in self._layers.values() if not layer.removed]
        needed = used.union(*(layer.below for layer in kept))
        for name, layer in list(self._layers.items()):
            if layer.removed and name not in needed:
                del self._layers[name]
                self._trash.put(self._folder / name)

    def _write(self, snapshot_id: str, layer: Layer) -> None:
        path = self._folder / snapshot_id / "snapshot.json"
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(layer)))
        draft.rename(path)
        self._layers[snapshot_id] = layer
