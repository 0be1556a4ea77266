"""Turns errors into answers: a page, a fragment for htmx, or JSON."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import resolve_url

from kode_web.shortcuts import page, wants_part
from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.quotas import QuotaExceeded
from sandboxes.errors import SandboxError
from sandboxes.models import Sandbox

type Answer = Callable[[HttpRequest], HttpResponse]

# Status -> what happened and what to do next, where the error itself says nothing.
WORDS = {
    400: ("That was not understood", "Go back, check what you entered, send it again."),
    403: ("You may not do this", "Ask an administrator of the team for the right."),
    404: ("Nothing here", "It is gone, or not yours to see."),
    409: ("Not now", "Try again in a moment."),
    410: ("It has ended", "Its record stays; make a new one to go on."),
    413: ("Too large", "Take a smaller part, or download it."),
    429: ("Too much at once", "Wait a moment, then try again."),
    501: (
        "Not at this backend",
        "It does not have this call. Take another backend for the next sandbox.",
    ),
    502: (
        "The sandbox did not do it",
        "Try again; if it stays so, tell who runs this.",
    ),
    503: ("No answer from the sandboxes", "Nothing is lost. Try again in a moment."),
    504: ("It took too long", "Try again, or give the command more time."),
}
# Of the form that was refused, what is not sent again.
NOT_REPEATED = frozenset({"csrfmiddlewaretoken"})


class Errors:
    """Answers for errors, whatever view raised them."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """The view's answer; a fragment never becomes the sign-in page."""
        response = self.get_response(request)
        login = resolve_url(settings.LOGIN_URL)
        target = response.headers.get("Location", "")
        if wants_part(request) and target.partition("?")[0] == login:
            return HttpResponse(status=204, headers={"HX-Refresh": "true"})
        return response

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        """The answer, None where Django's own will do."""
        status = status_of(error)
        if status is None:
            return None
        title, hint = WORDS.get(status, WORDS[502])
        text = "" if isinstance(error, Http404) else str(error)
        if not request.accepts("text/html"):
            retry = getattr(error, "retry", False)
            kind = type(error).__name__
            answer = {"error": text or title, "kind": kind, "retry": retry}
            return JsonResponse(answer, status=status)
        context = {"status": status, "title": title, "text": text, "hint": hint}
        template = "error.html"
        if isinstance(error, QuotaExceeded):
            template, context = "quota.html", context | refused(request, error)
        response = page(request, template, "message", context, status=status)
        if wants_part(request):
            response["HX-Retarget"], response["HX-Reswap"] = "#notice", "innerHTML"
        return response


def status_of(error: Exception) -> int | None:
    """The status that says it; None for an error that is nobody's intention."""
    match error:
        case SandboxError() | QuotaExceeded():
            return error.status
        case PermissionDenied():
            return 403
        case Http404():
            return 404
    return None


def refused(request: HttpRequest, error: QuotaExceeded) -> dict[str, Any]:
    """What holds the quota, what the person may end of it, and his form again."""
    return {
        "error": error,
        "held": [_holder(request, row) for row in error.held],
        "again": _again(request.POST),
    }


def _holder(request: HttpRequest, row: models.Model) -> dict[str, Any]:
    if not isinstance(row, Sandbox):
        return {"row": row}
    can_manage = May.MANAGE in access.rights(request.user, row)
    return {"row": row, "is_sandbox": True, "can_manage": can_manage}


def _again(form: QueryDict) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, values in form.lists()
        if name not in NOT_REPEATED
        for value in values
        if isinstance(value, str)
    ]


errors = Errors
