"""Which sandbox and port a request is for, by its host name or its headers."""

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from .registry import Registry
from .sandbox import NotFound, Sandbox

ENVD_PORT = 49983
HOST = re.compile(r"(\d{1,5})-(i?[a-z0-9]+)(?:-[a-z0-9]+)?\.")
TRAFFIC_HEADER = "e2b-traffic-access-token"
OWN_HEADERS = {TRAFFIC_HEADER, "e2b-sandbox-id", "e2b-sandbox-port"}


@dataclass(frozen=True)
class Address:
    """A port of a sandbox, which may not exist."""

    sandbox_id: str
    port: int


def address_of(headers: Headers) -> Address | None:
    """`<port>-<id>.<domain>`, else the E2b-Sandbox headers; None for neither."""
    if found := HOST.match(headers.get("host", "").lower()):
        return checked(found[2], found[1])
    if sandbox_id := headers.get("e2b-sandbox-id"):
        return checked(sandbox_id, headers.get("e2b-sandbox-port", str(ENVD_PORT)))
    return None


def checked(sandbox_id: str, port: str) -> Address:
    """Port 0, which no sandbox has, stands for what is not a port."""
    number = int(port) if port.isascii() and port.isdigit() else 0
    return Address(sandbox_id.partition("-")[0], number if number < 65536 else 0)


def is_local(host: str, domain: str) -> bool:
    """Whether the control plane may answer to this Host header.

    Our own names and plain addresses; any other name could be an attacker's,
    pointed at this machine.
    """
    name = host.lower()
    if name in (domain.lower(), f"api.{domain.lower()}"):
        return True
    name = re.sub(r":\d+$", "", name)
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name == "localhost"
    return True


class Refused(Exception):
    """Why a request does not reach a sandbox: a status and its JSON body."""

    def __init__(self, status: int, message: str, address: Address) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "sandboxId": address.sandbox_id,
            "message": message,
            "port": address.port,
            "code": status,
        }


def gone(address: Address) -> Refused:
    return Refused(502, "The sandbox was not found", address)


def closed(address: Address) -> Refused:
    return Refused(502, "The sandbox is running but port is not open", address)


async def sandbox_at(registry: Registry, address: Address, headers: Headers) -> Sandbox:
    """The running sandbox at an address; wakes one that resumes on traffic.

    Raises Refused.
    """
    try:
        sandbox = registry.get(address.sandbox_id)
        record = sandbox.record
        if not sandbox.running and record.auto_resume and not sandbox.ending:
            await registry.connect(record.sandbox_id, record.timeout_s)
    except NotFound as problem:
        raise gone(address) from problem
    if not sandbox.running:
        raise gone(address)
    token = record.traffic_token
    given = headers.get(TRAFFIC_HEADER)
    if address.port != ENVD_PORT and token is not None and given != token:
        raise Refused(403, refusal(given), address)
    return sandbox


def refusal(given: str | None) -> str:
    if given is None:
        return (
            "Sandbox is secured with traffic access token. "
            f"Token header '{TRAFFIC_HEADER}' is missing"
        )
    return "Provided traffic access token is invalid"
