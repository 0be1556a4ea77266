"""Websocket addresses of agents."""

from django.urls import path

from .consumers import AgentConsumer

urlpatterns = [
    path("ws/agents/<str:code>/", AgentConsumer.as_asgi()),
]
