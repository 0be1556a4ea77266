"""All URLs of the dashboard; previews have hosts and an application of their own."""

from django.contrib import admin
from django.urls import include, path

from kode_web import health
from kode_web.teams import views as teams

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("accounts/link/<str:token>/", teams.sign_in_link, name="sign_in_link"),
    path("accounts/", include("allauth.urls")),
    path("sandboxes/", include("sandboxes.urls")),
    path("agents/", include("agents.urls")),
    path("admin/", admin.site.urls),
    path("", include("kode_web.home_urls")),
]
