"""What the control plane answers: E2B's JSON shapes and its errors."""

from typing import Any

from starlette.responses import JSONResponse

from .envd.app import VERSION
from .metrics import round_cpus
from .records import Record
from .sandbox import NotFound

CLIENT_ID = "local"


class Refusal(Exception):
    """An error answer. `retry` False tells clients that repeat on 429 not to."""

    def __init__(
        self, status: int, message: str, *, retry: bool = True, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry, self.code = status, retry, code

    def response(self) -> JSONResponse:
        body: dict[str, Any] = {"code": self.status, "message": str(self)}
        if self.code is not None:
            body["error_code"] = self.code
        headers = None if self.retry else {"Should-Retry": "false"}
        return JSONResponse(body, self.status, headers=headers)


def missing(problem: NotFound) -> Refusal:
    text = f"Sandbox \"{problem}\" doesn't exist or you don't have access to it"
    return Refusal(404, text)


def too_many(limit: int) -> Refusal:
    """429 of a kind that trying again does not help."""
    text = (
        "you have reached the maximum number of concurrent sandboxes "
        f"({limit}) of the local runtime"
    )
    return Refusal(429, text, retry=False)


def unsupported(what: str) -> Refusal:
    """501, naming what the local runtime does not have."""
    return Refusal(501, f"{what}: not supported by the local runtime", retry=False)


def connected(record: Record, domain: str) -> dict[str, Any]:
    """The answer to create, connect and resume."""
    answer: dict[str, Any] = {
        "templateID": record.template,
        "alias": record.template,
        "sandboxID": record.sandbox_id,
        "clientID": CLIENT_ID,
        "envdVersion": VERSION,
        "domain": domain,
        "baseTree": record.base_tree,
    }
    if record.envd_token is not None:
        answer["envdAccessToken"] = record.envd_token
    if record.traffic_token is not None:
        answer["trafficAccessToken"] = record.traffic_token
    return answer


def listed(record: Record) -> dict[str, Any]:
    """A row of a list."""
    return {
        "templateID": record.template,
        "alias": record.template,
        "sandboxID": record.sandbox_id,
        "clientID": CLIENT_ID,
        "startedAt": record.started,
        "endAt": record.ends,
        "cpuCount": round_cpus(record.cpus),
        "memoryMB": record.memory_mb,
        "diskSizeMB": record.disk_mb,
        "state": record.state.value,
        "envdVersion": VERSION,
        "metadata": record.metadata,
        "baseTree": record.base_tree,
    }


def detail(record: Record, domain: str) -> dict[str, Any]:
    """Everything about one sandbox."""
    answer = listed(record) | {
        "domain": domain,
        "lifecycle": {
            "autoResume": record.auto_resume,
            "onTimeout": "pause" if record.auto_pause else "kill",
        },
    }
    if record.envd_token is not None:
        answer["envdAccessToken"] = record.envd_token
    if record.paused_whole is not None:
        answer["pauseMode"] = "full" if record.paused_whole else "filesystem"
    if record.allow_internet is not None:
        answer["allowInternetAccess"] = record.allow_internet
    if record.network:
        answer["network"] = record.network
    return answer
