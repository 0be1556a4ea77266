"""Pages of download links."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May

from . import downloads, files, links
from .models import Sandbox
from .views import frame, user_of


@login_required
@require_http_methods(["GET", "POST"])
def index(request: HttpRequest, code: str) -> HttpResponse:
    """The links of a sandbox that work now; a POST makes one for `path`."""
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    context = frame(request, sandbox, "files") | {"lives": links.LIVES.items()}
    path = request.POST.get("path") or request.GET.get("path", "")
    if request.method == "POST":
        hours = request.POST.get("hours", "")
        life = int(hours) if hours.isdecimal() and len(hours) < 5 else 0
        key, made = links.make(user_of(request), sandbox, path, life)
        at = reverse("sandboxes:link", args=[key])
        context |= {"made": made, "url": request.build_absolute_uri(at)}
    context |= {
        "path": files.clean(sandbox, path) if path else "",
        "links": sandbox.links.filter(expires_at__gt=timezone.now()).select_related(
            "owner"
        ),
    }
    return page(request, "sandboxes/links.html", context=context)


@login_required
@require_POST
def revoke(request: HttpRequest, code: str, link: str) -> HttpResponse:
    """End a link now."""
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    links.revoke(user_of(request), get_object_or_404(sandbox.links, code=link))
    return redirect("sandboxes:links", code)


@require_GET
def use(request: HttpRequest, key: str) -> HttpResponseBase:
    """The bytes behind a link, for whoever has it."""
    link = links.use(key)
    if files.stat(link.sandbox, link.path).is_dir:
        return downloads.archive(request, link.sandbox, link.path, "zip")
    return downloads.file(request, link.sandbox, link.path)
