"""Websocket addresses of sandboxes."""

from typing import Any, cast

from django.urls import path

from .consumers import SandboxSocket, TerminalSocket
from .exec_sockets import CommandSocket
from .file_sockets import FilesSocket
from .list_sockets import ListSocket

# A route takes an ASGI application here, which Django's types do not know.
news = cast(Any, SandboxSocket.as_asgi())
terminal = cast(Any, TerminalSocket.as_asgi())
command = cast(Any, CommandSocket.as_asgi())
folders = cast(Any, FilesSocket.as_asgi())
listed = cast(Any, ListSocket.as_asgi())
urlpatterns = [
    path("ws/sandboxes/", listed),
    path("ws/sandboxes/<str:code>/", news),
    path("ws/sandboxes/<str:code>/files/", folders),
    path("ws/sandboxes/<str:code>/terminals/<str:terminal>/", terminal),
    path("ws/sandboxes/<str:code>/commands/<str:command>/", command),
]
