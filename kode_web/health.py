"""Whether this instance serves, for load balancers and set-up."""

from datetime import timedelta

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.models import Run
from sandboxes import gateway

# A turn waits for a free worker this long at most, unless none works.
WAIT = timedelta(seconds=30)


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 when this process serves and reaches its database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """The backends' and workers' state too; 503 when no sandbox could be made now.

    Says what is wrong but not where: anybody may ask.
    """
    shared = [one.name for one in gateway.backends().values() if one.team_id is None]
    known = gateway.statuses(shared)
    found = {name: name in known and known[name].is_ok for name in shared}
    backends = {name: "ok" if is_ok else "no answer" for name, is_ok in found.items()}
    ready = any(found.values())
    late = Run.objects.filter(
        state=Run.State.QUEUED,
        agent__held_at=None,
        created_at__lt=timezone.now() - WAIT,
    )
    answer = {
        "status": "ok" if ready else "no backend",
        "backends": backends,
        "agents": "turns wait" if late.exists() else "ok",
    }
    return JsonResponse(answer, status=200 if ready else 503)
