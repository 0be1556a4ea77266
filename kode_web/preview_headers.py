"""Which headers pass between a browser and a server in a sandbox."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# They speak for a whole site or another transport, which is not the sandbox's.
SITE_WIDE = frozenset({"strict-transport-security", "clear-site-data", "alt-svc"})
OURS = frozenset({"host", "e2b-traffic-access-token", "forwarded", "x-real-ip"})
DOMAIN = re.compile(r";\s*domain=[^;]*", re.IGNORECASE)

type Pairs = Iterable[tuple[bytes, bytes]]


def for_sandbox(
    headers: Pairs, added: dict[str, str], host: str, our_cookie: str
) -> list[tuple[str, str]]:
    """A browser's headers as the sandbox may see them: without our cookie."""
    kept = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in HOP_BY_HOP or name in OURS or name.startswith("x-forwarded-"):
            continue
        if name == "cookie":
            value = without_cookie(value, our_cookie)
            if not value:
                continue
        kept.append((name, value))
    kept.append(("x-forwarded-host", host))
    return [*kept, *added.items()]


def without_cookie(header: str, name: str) -> str:
    """A Cookie header without one cookie."""
    parts = [part.strip() for part in header.split(";")]
    return "; ".join(p for p in parts if p and p.partition("=")[0].strip() != name)


def for_browser(
    headers: Pairs, upstream: set[str], our_cookie: str
) -> list[tuple[bytes, bytes]]:
    """A sandbox's headers as the browser may see them.

    Cookies stay on this host, ours cannot be replaced, and a redirect to the
    `upstream` names leads back here.
    """
    kept = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in HOP_BY_HOP or name in SITE_WIDE:
            continue
        if name == "set-cookie":
            if value.partition("=")[0].strip() == our_cookie:
                continue
            value = DOMAIN.sub("", value)
        elif name == "location":
            value = _own_location(value, upstream)
        kept.append((name.encode("latin-1"), value.encode("latin-1")))
    return kept


def _own_location(value: str, upstream: set[str]) -> str:
    parts = urlsplit(value)
    if parts.hostname in upstream:
        return parts._replace(scheme="", netloc="").geturl() or "/"
    return value
