"""Whether this instance serves, for load balancers and set-up."""

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from sandboxes import gateway
from sandboxes.errors import SandboxError


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 when this process serves and reaches its database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """The backends' state too; 503 when no sandbox could be made now."""
    states = {}
    for name in gateway.backends():
        try:
            gateway.templates(name)
            states[name] = "ok"
        except SandboxError as error:
            states[name] = str(error)
    ready = "ok" in states.values()
    answer = {"status": "ok" if ready else "no backend", "backends": states}
    return JsonResponse(answer, status=200 if ready else 503)
