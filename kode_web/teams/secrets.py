"""Secrets at rest: encrypted under keys that are never in the database.

`KODE_SECRET_KEYS` holds the keys, newest first, separated by ";": the first one
encrypts, all of them decrypt. Any text serves as a key; a Fernet key is derived
from it.
"""

import base64
import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models


@lru_cache(maxsize=4)
def _box(keys: str) -> MultiFernet:
    parts = [part.strip() for part in keys.split(";") if part.strip()]
    if not parts:
        raise ImproperlyConfigured("KODE_SECRET_KEYS is empty: give at least one key.")
    digests = (hashlib.sha256(part.encode()).digest() for part in parts)
    return MultiFernet([Fernet(base64.urlsafe_b64encode(d)) for d in digests])


def encrypt(text: str) -> str:
    """Encrypt under the newest key."""
    return seal(text.encode()).decode()


def decrypt(token: str) -> str:
    """Decrypt under any known key. Raises ImproperlyConfigured when none fits."""
    return unseal(token.encode()).decode()


def seal(data: bytes) -> bytes:
    """Encrypt bytes under the newest key."""
    return _box(settings.FIELD_KEYS).encrypt(data)


def unseal(token: bytes) -> bytes:
    """Decrypt bytes under any known key. Raises ImproperlyConfigured when none fits."""
    try:
        return _box(settings.FIELD_KEYS).decrypt(token)
    except InvalidToken as error:
        raise ImproperlyConfigured(
            "A stored secret cannot be read: KODE_SECRET_KEYS lacks the key that "
            "encrypted it. Put the old key back behind a ';'."
        ) from error


# Django's fields take no type arguments at run time.
if TYPE_CHECKING:
    TextField = models.TextField[Any, Any]
else:
    TextField = models.TextField


class SecretJSONField(TextField):
    """A JSON value that is encrypted in the database and plain in Python."""

    # What django-stubs takes and gives for the attribute.
    _pyi_private_set_type: Any
    _pyi_private_get_type: Any

    def from_db_value(self, value: str | None, *_: object) -> Any:
        """Decrypt what the database holds."""
        return None if value is None else json.loads(decrypt(value))

    def to_python(self, value: Any) -> Any:
        """Leave Python values as they are."""
        return value

    def get_prep_value(self, value: Any) -> str | None:
        """Encrypt for the database."""
        return None if value is None else encrypt(json.dumps(value))
