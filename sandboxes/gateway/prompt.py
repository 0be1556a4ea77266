"""Answers that come soon or not at all: no page waits for a sick backend.

The SDK bounds each request, but makes several for one call: of a machine that does
not answer it asks how it is, for another ten seconds.
"""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from django.db import connection

from sandboxes.errors import Unreachable

# What a page gives a backend to answer, or to begin to.
PATIENCE_S = 2.5


def promptly[T](
    call: Callable[[], T],
    *,
    patience_s: float | None = None,
    undo: Callable[[T], object] | None = None,
) -> T:
    """What a call gives within PATIENCE_S, or so many seconds. Raises Unreachable.

    The call goes on in a thread of its own then, and what it gives in the end is
    given to `undo`. It must not use the database.
    """
    future: Future[T] = Future()
    lock = threading.Lock()
    is_awaited = True

    def work() -> None:
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
            return
        with lock:
            if is_awaited:
                future.set_result(result)
                return
        if undo is not None:
            undo(result)

    threading.Thread(target=work, name="backend", daemon=True).start()
    try:
        return future.result(PATIENCE_S if patience_s is None else patience_s)
    except TimeoutError as error:
        with lock:
            if future.done():
                return future.result()
            is_awaited = False
        raise Unreachable("The sandbox does not answer. Try again.") from error


def at_once[T](
    call: Callable[[T], object], items: Iterable[T], *, patience_s: float = PATIENCE_S
) -> None:
    """Call for each in a thread of its own, and wait for so long at most in all.

    Those that take longer go on. What goes wrong is the call's own to keep.
    """

    def run(item: T) -> None:
        try:
            call(item)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in items]
    for thread in threads:
        thread.start()
    until = time.monotonic() + patience_s
    for thread in threads:
        thread.join(max(0, until - time.monotonic()))
