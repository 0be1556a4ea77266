"""Reads the bodies and queries of the control plane; refuses what is not there."""

import json
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request

from .answers import Refusal, unsupported
from .records import Record, State
from .registry import MAX_TIMEOUT_S

MAX_BODY_BYTES = 1 << 20
MAX_LIMIT = 100  # sandboxes on a page
MAX_KEY = 255
EVERYWHERE = "0.0.0.0/0"
V1_TIMEOUT_S, V2_TIMEOUT_S = 15, 300

Body = dict[str, Any]


async def body_of(request: Request) -> Body:
    """The JSON object of a request; an empty body is an empty object."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise Refusal(413, "the body is too large")
    try:
        body = json.loads(data or b"{}")
    except ValueError as problem:
        raise Refusal(400, f"Error when parsing request: {problem}") from problem
    if not isinstance(body, dict):
        raise Refusal(400, "Error when parsing request: not an object")
    return body


def timeout_of(body: Body, default_s: int, key: str = "timeout") -> float:
    """Seconds, above 0 and up to the longest life."""
    seconds = number_of(body, default_s, key)
    if seconds <= 0:
        raise Refusal(400, "Timeout must be greater than 0")
    if seconds > MAX_TIMEOUT_S:
        hours = int(MAX_TIMEOUT_S // 3600)
        raise Refusal(400, f"Timeout cannot be greater than {hours} hours")
    return seconds


def number_of(body: Body, default: float | None, key: str) -> float:
    value = body.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(400, f"Error when parsing request: {key} must be a number")
    return float(value)


def draft_of(body: Body, *, version: int, key: str | None) -> Record:
    """A sandbox as a create request wants it; its tree is not chosen yet."""
    template = body.get("templateID")
    if not template or not isinstance(template, str):
        raise Refusal(400, "Error when parsing request: templateID is required")
    for name in ("iam", "volumeMounts"):  # `mcp` is for the client's own command
        if body.get(name):
            raise unsupported(name)
    if key is not None and not 1 <= len(key) <= MAX_KEY:
        raise Refusal(400, f"Idempotency-Key must have 1 to {MAX_KEY} characters")
    network = body.get("network") or {}
    allowed = body.get("allow_internet_access")
    secure = version == 2 or bool(body.get("secure"))
    return Record(
        sandbox_id="",
        template=template.partition(":")[0].rpartition("/")[2],
        base_tree="",
        started_at=0.0,
        end_at=0.0,
        timeout_s=timeout_of(body, V2_TIMEOUT_S if version == 2 else V1_TIMEOUT_S),
        envd_token=secrets.token_hex(32) if secure else None,
        traffic_token=None if is_public(network) else secrets.token_hex(32),
        auto_pause=bool(body.get("autoPause")),
        auto_pause_memory=body.get("autoPauseMemory") is not False,
        auto_resume=bool((body.get("autoResume") or {}).get("enabled")),
        internet=has_internet(network, allowed),
        allow_internet=allowed,
        idempotency_key=key,
        metadata=strings_of(body, "metadata"),
        env=strings_of(body, "envVars"),
        network=network,
    )


def strings_of(body: Body, key: str) -> dict[str, str]:
    """A map of texts; NUL and `=` cannot be in a name of the environment."""
    value = body.get(key) or {}
    if not isinstance(value, dict) or not all(
        isinstance(item, str) and "\0" not in item for item in value.values()
    ):
        raise Refusal(400, f"Error when parsing request: {key} must map to strings")
    if key == "envVars" and any(not k or set(k) & {"\0", "="} for k in value):
        raise Refusal(400, "Error when parsing request: bad name in envVars")
    return value


def is_public(network: Body) -> bool:
    return network.get("allowPublicTraffic") is not False


def is_port(value: object) -> bool:
    return type(value) is int and 1 <= value <= 65535


def has_internet(network: Body, allowed: bool | None) -> bool:
    """All or nothing: finer rules are refused rather than ignored."""
    for name in ("rules", "egressProxy", "dnsServers"):
        if network.get(name):
            raise unsupported(f"network.{name}")
    ports = network.get("httpsPorts") or []
    if not isinstance(ports, list) or not all(is_port(port) for port in ports):
        text = "network.httpsPorts must be a list of ports"
        raise Refusal(400, f"Error when parsing request: {text}")
    denied = set(network.get("denyOut") or ())
    opened = set(network.get("allowOut") or ())
    if denied - {EVERYWHERE} or opened - {EVERYWHERE}:
        raise unsupported(f"network rules finer than {EVERYWHERE}")
    if denied and not opened:
        return False
    return allowed is not False


@dataclass(frozen=True)
class Page:
    """What a list request asks for."""

    states: set[str]
    metadata: dict[str, str]
    template: str | None
    started_after: float | None
    ascending: bool
    limit: int
    offset: int

    def matches(self, record: Record) -> bool:
        return (
            record.state.value in self.states
            and self.metadata.items() <= record.metadata.items()
            and self.template in (None, record.template)
            and (self.started_after or 0.0) <= record.started_at
        )


def page_of(request: Request, *, states: set[str]) -> Page:
    """The filters of a list; `states` when none is given."""
    query = request.query_params
    wanted = {
        state
        for value in request.query_params.getlist("state")
        for state in value.split(",")
        if state
    }
    if unknown := wanted - {state.value for state in State}:
        raise Refusal(400, f"unknown state: {', '.join(sorted(unknown))}")
    pairs = parse_qsl(query.get("metadata", ""), keep_blank_values=True)
    return Page(
        states=wanted or states,
        metadata={unquote(key): unquote(value) for key, value in pairs},
        template=query.get("template"),
        started_after=moment_of(query.get("startedAfter")),
        ascending=query.get("order", "desc") == "asc",
        limit=min(max(whole_of(query.get("limit"), MAX_LIMIT), 1), MAX_LIMIT),
        offset=max(whole_of(query.get("nextToken"), 0), 0),
    )


def whole_of(text: str | None, default: int) -> int:
    if not text:
        return default
    try:
        return int(text)
    except ValueError as problem:
        raise Refusal(400, f"{text!r} is not a number") from problem


def moment_of(text: str | None) -> float | None:
    """Seconds since 1970 from an ISO time; a space stands for a lost `+`."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text.replace(" ", "+")).timestamp()
    except ValueError as problem:
        raise Refusal(400, f"{text!r} is not a time") from problem


def range_of(request: Request) -> tuple[float, float]:
    """The (start, end) of a metrics request, in seconds."""
    query = request.query_params
    start = whole_of(query.get("start"), 0)
    end = whole_of(query.get("end"), int(time.time()) + 1)
    if start > end:
        raise Refusal(400, "start must not be after end")
    return float(start), float(end)
