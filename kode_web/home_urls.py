"""Addresses of the pages that join the apps: home, templates, the person's own."""

from django.urls import path

from kode_web import home_views as views
from kode_web.teams import views as teams

urlpatterns = [
    path("", views.home, name="home"),
    path("find/", views.find_or_run, name="find"),
    path("me/", teams.me, name="me"),
    path("accounts/link/<str:token>/", teams.sign_in_link, name="sign_in_link"),
    path("templates/", views.templates, name="templates"),
    path("templates/base/build/", views.build_base, name="build_base"),
]
