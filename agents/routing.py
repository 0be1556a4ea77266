"""Websocket addresses of agents."""

from typing import Any, cast

from django.urls import path

from .consumers import AgentConsumer

# A route takes an ASGI application here, which Django's types do not know.
socket = cast(Any, AgentConsumer.as_asgi())
urlpatterns = [path("ws/agents/<str:code>/", socket)]
