"""Errors of one sandbox's services, as Connect codes and plain HTTP answers."""

import errno

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from starlette.responses import JSONResponse

from sandboxes.local.contract import BoxGone

from .agent import AgentLost

FULL = {errno.ENOSPC, errno.EDQUOT}
CODES = {
    errno.ENOENT: Code.NOT_FOUND,
    errno.EEXIST: Code.ALREADY_EXISTS,
    errno.EINVAL: Code.INVALID_ARGUMENT,
    errno.ENOTDIR: Code.INVALID_ARGUMENT,
    errno.EISDIR: Code.INVALID_ARGUMENT,
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EPERM: Code.PERMISSION_DENIED,
    errno.E2BIG: Code.OUT_OF_RANGE,
    errno.ENOSPC: Code.RESOURCE_EXHAUSTED,
}
STATUSES = {
    errno.ENOENT: 404,
    errno.EISDIR: 400,
    errno.ENOTDIR: 400,
    errno.EINVAL: 400,
    errno.ENAMETOOLONG: 400,
    errno.EACCES: 403,
    errno.EPERM: 403,
}


def connect_error(error: Exception, what: str) -> ConnectError:
    """`what` names the thing, mostly a path; the code comes from the errno."""
    match error:
        case ConnectError():
            return error
        case BoxGone():
            return ConnectError(Code.UNAVAILABLE, "The sandbox was not found")
        case AgentLost():
            text = f"{what}: the file service of the sandbox ended, try again"
            return ConnectError(Code.ABORTED, text)
        case LookupError():
            return ConnectError(Code.UNAUTHENTICATED, f"invalid username: {error}")
        case OSError():
            code = CODES.get(error.errno or 0, Code.INTERNAL)
            return ConnectError(code, f"{what}: {error.strerror or error}")
        case _:
            return ConnectError(Code.INVALID_ARGUMENT, f"{what}: {error}")


def answer(status: int, message: str) -> JSONResponse:
    return JSONResponse({"code": status, "message": message}, status)


def http_error(error: Exception, what: str) -> JSONResponse:
    """The same for plain HTTP."""
    match error:
        case BoxGone():
            return answer(502, "The sandbox was not found")
        case AgentLost():
            return answer(500, f"{what}: the file service of the sandbox ended")
        case LookupError():
            return answer(401, f"error looking up user {error}")
        case OSError() if error.errno in FULL:
            return answer(507, f"{what}: not enough disk space available")
        case OSError():
            status = STATUSES.get(error.errno or 0, 500)
            return answer(status, f"{what}: {error.strerror or error}")
        case _:
            return answer(400, f"{what}: {error}")
