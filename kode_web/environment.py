"""Read settings from the environment, and secrets from the data folder.

Kept apart from `settings.py` so that each setting there is one line that a test
can compare with the README.
"""

import contextlib
import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


def env_str(name: str, default: str = "") -> str:
    """The variable's text without surrounding blanks; empty counts as absent."""
    return os.environ.get(name, "").strip() or default


def env_bool(name: str, *, default: bool) -> bool:
    """True or false; raises ImproperlyConfigured for any other word."""
    word = os.environ.get(name, str(default)).strip().lower()
    if word in TRUE:
        return True
    if word in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={word!r}: use one of 1, 0, true, false.")


def env_int(name: str, default: int) -> int:
    """A whole number of at least 0; raises ImproperlyConfigured otherwise."""
    text = env_str(name, str(default))
    if not text.isdecimal():
        raise ImproperlyConfigured(f"{name}={text!r}: use a whole number, 0 or more.")
    return int(text)


def env_list(name: str) -> list[str]:
    """Words separated by commas."""
    return [word.strip() for word in env_str(name).split(",") if word.strip()]


def env_secret(name: str, folder: Path) -> str:
    """The variable, else the file of that name in `folder`, made once (mode 0600).

    Two processes that start at once agree: the file appears whole by a hard
    link, and whoever comes second reads the first one's.
    """
    if value := env_str(name):
        return value
    path = folder / name.lower().removeprefix("kode_")
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = folder / f".{path.name}.{secrets.token_hex(8)}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text().strip()
