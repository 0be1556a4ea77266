"""News of a sandbox's folders, for pages that show them."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Callable

from kode_web.sockets import MAX_MESSAGE_BYTES, TOO_BIG, RowSocket

from . import files, gateway
from .errors import SandboxError
from .models import Sandbox

MAX_FOLDERS = 24
MAX_NAMES = 50
# Changes are told together: a build makes thousands within a second.
QUIET_S = 0.25


class FilesSocket(RowSocket):
    """What changes in the folders that a page shows.

    Address: `/ws/sandboxes/<code>/files/`. From the browser: `{"watch": [paths]}`,
    the folders of which it wants to hear from now on, MAX_FOLDERS at most. From the
    server: `{"changed": {path: [names]}}`, some of the names that changed there, and
    `{"lost": path}` for a folder that cannot be watched, or no more.
    """

    model = Sandbox

    async def joined(self) -> None:
        """Nothing is watched until the browser says what."""
        self._watches: dict[str, gateway.Watch] = {}
        self._changed: dict[str, set[str]] = defaultdict(set)
        self._telling: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def left(self) -> None:
        """Stop all watches."""
        if self._person is None:
            return
        if self._telling is not None:
            self._telling.cancel()
        for watch in self._watches.values():
            await watch.close()

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """Take in which folders to watch; what is malformed is left out."""
        if bytes_data is not None or len(text_data or "") > MAX_MESSAGE_BYTES:
            await self.close(TOO_BIG)
            return
        try:
            message = json.loads(text_data or "")
        except (ValueError, RecursionError):
            return
        match message:
            case {"watch": list(paths)}:
                wanted = [path for path in paths if isinstance(path, str)]
                async with self._lock:
                    await self._follow(wanted[:MAX_FOLDERS])

    async def _follow(self, wanted: list[str]) -> None:
        """Begin and end watches, so that these are watched and no others."""
        for path in set(self._watches) - set(wanted):
            await self._watches.pop(path).close()
        for path in wanted:
            if path in self._watches or not self.row.is_running:
                continue
            try:
                where = files.clean(self.row, path)
                self._watches[path] = await gateway.watch(
                    self.row, where, self._noting(path), self._losing(path)
                )
            except SandboxError:
                await self.send(text_data=json.dumps({"lost": path}))

    def _noting(self, path: str) -> Callable[[str], None]:
        def note(name: str) -> None:
            names = self._changed[path]
            if len(names) < MAX_NAMES:
                names.add(name)
            if self._telling is None or self._telling.done():
                self._telling = asyncio.create_task(self._tell())

        return note

    def _losing(self, path: str) -> Callable[[], None]:
        def lose() -> None:
            self._watches.pop(path, None)

        return lose

    async def _tell(self) -> None:
        await asyncio.sleep(QUIET_S)
        while self._changed:
            told = {path: sorted(names) for path, names in self._changed.items()}
            self._changed.clear()
            with contextlib.suppress(Exception):
                await self.send(text_data=json.dumps({"changed": told}))
            await asyncio.sleep(QUIET_S)
