"""What must hold before anything starts, found by `manage.py check` and the server.

Ports do not separate cookies and neither does SameSite between hosts of one
site, so code in a sandbox must be shown on a site of its own.
"""

import ipaddress
import os
import sys
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

# Second levels below a country's domain under which names are sold.
SHARED_SECOND = frozenset(
    {"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"}
)


def site_of(host: str) -> str:
    """The part of a host that browsers share cookies in.

    Without the public suffix list, a name that is sold under an unusual suffix
    counts as the same site as its neighbours: refused, never wrongly allowed.
    """
    host = host.lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        labels = host.split(".")
    has_two = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in SHARED_SECOND
    return ".".join(labels[-3:] if has_two else labels[-2:])


def preview_site() -> list[CheckMessage]:
    """Previews on the dashboard's site could act as whoever is signed in."""
    site, preview = settings.SITE.hostname or "", _without_port(settings.PREVIEW_DOMAIN)
    if site_of(site) == site_of(preview):
        return [
            Error(
                f"KODE_PREVIEW_DOMAIN ({preview}) is on the same site as the dashboard "
                f"({site}): code in a sandbox could act as whoever is signed in.",
                hint="Take a domain of its own, such as one that is registered apart.",
                id="kode.E001",
            )
        ]
    is_here = site == "localhost" or site.endswith(".localhost")
    if preview.endswith(".localhost") and not is_here:
        return [
            Warning(
                "Previews of ports open on this machine only.",
                hint="Set KODE_PREVIEW_DOMAIN to a domain with a wildcard DNS entry.",
                id="kode.W001",
            )
        ]
    return []


def sdk_environment() -> list[CheckMessage]:
    """The SDK's debug mode sends every sandbox's traffic to one local port."""
    if os.environ.get("E2B_DEBUG", "").lower() in ("", "false"):
        return []
    return [Error("E2B_DEBUG is set; take it out of the environment.", id="kode.E002")]


def processes() -> list[CheckMessage]:
    """State in one process cannot be shared by several."""
    if _web_processes() < 2:
        return []
    engine = settings.DATABASES["default"]["ENGINE"]
    missing = [] if settings.REDIS_URL else ["REDIS_URL"]
    if engine.endswith("sqlite3"):
        missing.append("DATABASE_URL with PostgreSQL")
    if not missing:
        return []
    return [
        Error(
            "Several web processes share sign-ins, news and codes only through "
            f"{' and '.join(missing)}.",
            hint="Set them, or run one web process.",
            id="kode.E003",
        )
    ]


def _web_processes() -> int:
    """As uvicorn is told; one when nothing is said."""
    said = os.environ.get("WEB_CONCURRENCY", "")
    if "--workers" in sys.argv[:-1]:
        said = sys.argv[sys.argv.index("--workers") + 1]
    return int(said) if said.isdecimal() else 1


def _without_port(domain: str) -> str:
    return domain.rpartition(":")[0] if ":" in domain else domain


CHECKS = (preview_site, sdk_environment, processes)


def run(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """All of them, as Django's check framework calls them."""
    return [message for check in CHECKS for message in check()]


def refuse() -> None:
    """Raise ImproperlyConfigured rather than serve what is not safe."""
    for message in run():
        if message.is_serious():
            raise ImproperlyConfigured(f"{message.msg} {message.hint or ''}")
