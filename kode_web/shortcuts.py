"""What every page needs: page or fragment, and what the frame around it shows."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from kode_web.teams import access


def page(
    request: HttpRequest,
    template: str,
    part: str | None = None,
    context: dict[str, Any] | None = None,
    *,
    status: int = 200,
) -> HttpResponse:
    """The whole page, or its partial `part` when htmx asks for it."""
    asks_part = request.headers.get("HX-Request") == "true"
    boosted = request.headers.get("HX-Boosted") == "true"
    name = f"{template}#{part}" if part and asks_part and not boosted else template
    response = render(request, name, context, status=status)
    response["Vary"] = "HX-Request"
    return response


def chrome(request: HttpRequest) -> dict[str, Any]:
    """What base.html shows around every page."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    has_model = bool(
        settings.ANTHROPIC_API_KEY
        or settings.OPENAI_API_KEY
        or settings.OPENAI_BASE_URL
    )
    return {
        "own_team": access.own_team(user),
        "model_is_offline": not has_model,
        "preview_domain": settings.PREVIEW_DOMAIN,
    }
