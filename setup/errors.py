"""The one error that set-up raises on purpose."""


class SetupError(Exception):
    """Set-up cannot go on; the text says why and what to do next."""
