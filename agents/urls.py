"""Addresses of agents."""

from django.urls import path

from . import views

app_name = "agents"
urlpatterns = [
    path("", views.index, name="list"),
    path("new/", views.new, name="new"),
    path("<str:code>/", views.detail, name="detail"),
    path("<str:code>/send/", views.send, name="send"),
    path("<str:code>/stop/", views.stop, name="stop"),
    path("<str:code>/pause/", views.pause, name="pause"),
    path("<str:code>/resume/", views.resume, name="resume"),
    path("<str:code>/fork/", views.fork, name="fork"),
    path("<str:code>/dispose/", views.dispose, name="dispose"),
    path("<str:code>/queued/<str:message>/", views.unqueue, name="unqueue"),
    path("<str:code>/calls/<str:call>/decide/", views.decide, name="decide"),
]
