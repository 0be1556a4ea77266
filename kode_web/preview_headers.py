"""Which headers pass between a browser and a server in a sandbox."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from sandboxes.gateway import Target

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
# Who may frame it is said by the proxy: this host's own pages, and the dashboard.
SITE_WIDE = frozenset(
    {"strict-transport-security", "clear-site-data", "alt-svc", "x-frame-options"}
)
OURS = frozenset({"host", "e2b-traffic-access-token", "forwarded", "x-real-ip"})
# The server in front writes these itself.
OF_THE_SERVER = frozenset({"date", "server"})
# The cookie of who has read what a public preview is.
SEEN = "kode-seen"
DOMAIN = re.compile(r";\s*domain=[^;]*", re.IGNORECASE)

type Pairs = Iterable[tuple[bytes, bytes]]


def for_sandbox(
    headers: Pairs, target: Target, our_cookie: str
) -> list[tuple[str, str]]:
    """A browser's headers as the sandbox may see them: without our cookie.

    The server there knows itself by the target's host, so that what the browser
    says about this host's origin is said about that one.
    """
    given = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in headers]
    here = dict(given).get("host", "")
    dropped = _dropped(given) | OURS
    there = f"{urlsplit(target.url).scheme}://{target.headers['host']}"
    kept = []
    for name, value in given:
        if name in dropped or name.startswith("x-forwarded-"):
            continue
        if name == "cookie":
            value = without_cookie(without_cookie(value, our_cookie), SEEN)
            if not value:
                continue
        elif name in ("origin", "referer"):
            scheme, _, rest = value.partition("://")
            if scheme in ("http", "https") and rest.partition("/")[0] == here:
                value = there + rest.removeprefix(here)
        kept.append((name, value))
    return [*kept, ("x-forwarded-host", here), *target.headers.items()]


def _dropped(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """What speaks for one connection alone, by rule or by its own word."""
    named = (value for name, value in headers if name == "connection")
    words = {word.strip().lower() for value in named for word in value.split(",")}
    return HOP_BY_HOP | words


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
    given = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in headers]
    dropped = _dropped(given) | SITE_WIDE | OF_THE_SERVER
    kept = []
    for name, value in given:
        if name in dropped:
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
