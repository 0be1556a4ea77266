"""Answers that come soon or not at all: no page waits for a sick backend.

The SDK bounds each request, but makes several for one call: of a machine that does
not answer it asks how it is, for another ten seconds.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future

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
