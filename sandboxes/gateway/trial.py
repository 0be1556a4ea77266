"""Trying a backend out before it is one: with the address and key of a form."""

from collections.abc import Iterable
from typing import Any

from sandboxes import errors

from .backends import REQUEST_TIMEOUT_S, Backend, translate
from .prompt import promptly

REFUSED = "The backend refuses this key. Check it, and give it again."


def try_out(found: Backend, sandbox_ids: Iterable[str] = ()) -> list[str]:
    """List there, as the product would; which of these machines it does not have.

    Feeds no breaker. Raises Refused, Unreachable, Invalid for what does not speak
    E2B's protocol.
    """
    try:
        return promptly(lambda: _asked(found, sandbox_ids))
    except errors.SandboxError:
        raise
    except Exception as error:
        raise _ours(error) from error


def _asked(found: Backend, sandbox_ids: Iterable[str]) -> list[str]:
    import e2b

    options: dict[str, Any] = {
        **found.options,
        "request_timeout": REQUEST_TIMEOUT_S,
        "retries": 0,
    }
    missing = []
    e2b.Sandbox.list(limit=1, **options).next_items()
    for sandbox_id in sandbox_ids:
        try:
            e2b.Sandbox.get_info(sandbox_id, **options)
        except e2b.SandboxNotFoundException:
            missing.append(sandbox_id)
    return missing


def _ours(error: Exception) -> errors.SandboxError:
    status = getattr(error, "status_code", None)
    if status == 403:
        return errors.Refused(REFUSED)
    ours = translate(error)
    if isinstance(ours, errors.Refused):
        return errors.Refused(REFUSED)
    if status and 300 <= status < 500 and status != 429:
        return errors.Invalid(
            f"The backend does not speak E2B's protocol there: it answered {status}."
        )
    return ours
