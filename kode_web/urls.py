"""All URLs of the dashboard; previews have hosts and an application of their own."""

from django.contrib import admin
from django.urls import include, path

from kode_web import health, preview_views

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("accounts/", include("allauth.urls")),
    path(
        "sandboxes/<str:code>/ports/<int:port>/open/",
        preview_views.open_port,
        name="preview_open",
    ),
    path("sandboxes/", include("sandboxes.urls")),
    path("agents/", include("agents.urls")),
    path("teams/", include("kode_web.teams.urls")),
    path("admin/", admin.site.urls),
    path("", include("kode_web.home_urls")),
]
