"""What can go wrong with a sandbox, in the words of the product.

`gateway` turns the SDK's errors into these; the middleware turns these into a
page, a fragment or JSON. `status` is HTTP's, `retry` says whether the same call
may work in a moment, the text names the next step.
"""


class SandboxError(Exception):
    """A sandbox could not do what was asked."""

    status = 502
    retry = False


class Invalid(SandboxError):
    """The request itself is wrong."""

    status = 400


class NotFound(SandboxError):
    """No such file, process or template in a sandbox that lives."""

    status = 404


class NotReady(SandboxError):
    """The sandbox's state does not allow it now."""

    status = 409


class Exists(NotReady):
    """There is a file of that name already."""


class Gone(SandboxError):
    """The sandbox no longer exists at its backend."""

    status = 410


class TooLarge(SandboxError):
    """More bytes or entries than this page can take."""

    status = 413


class Busy(SandboxError):
    """The backend refuses for now: a rate or concurrency limit of its own."""

    status = 429
    retry = True
    wait_s = 0.0  # how long it asks to be left alone, 0 when it does not say


class Refused(SandboxError):
    """The backend does not accept our key."""

    status = 502


class Unreachable(SandboxError):
    """The backend did not answer, or not in time."""

    status = 503
    retry = True


class TimedOut(SandboxError):
    """The command ran longer than it was allowed to."""

    status = 504


class Unsupported(SandboxError):
    """The backend does not have this call at all."""

    status = 501
