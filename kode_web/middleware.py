"""Turns the product's own errors into answers: a page, a fragment or JSON."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import SimpleTemplateResponse

from kode_web.shortcuts import page
from kode_web.teams.quotas import QuotaExceeded
from sandboxes.errors import SandboxError

type Answer = Callable[[HttpRequest], HttpResponse]


class Errors:
    """Answers for SandboxError and QuotaExceeded, whatever view raised them."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | SimpleTemplateResponse | None:
        """The answer, None for an error that is not ours."""
        if not isinstance(error, SandboxError | QuotaExceeded):
            return None
        context: dict[str, Any] = {"error": error, "status": error.status}
        if request.accepts("text/html"):
            template = (
                "quota.html" if isinstance(error, QuotaExceeded) else "error.html"
            )
            return page(request, template, "message", context, status=error.status)
        retry = getattr(error, "retry", False)
        answer = {"error": str(error), "retry": retry}
        return JsonResponse(answer, status=error.status)


errors = Errors
