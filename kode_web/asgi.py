"""The ASGI application: dispatches by host before Django sees a request."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kode_web.settings")
http = get_asgi_application()

from sandboxes.routing import urlpatterns as sandbox_sockets  # noqa: E402

from agents.routing import urlpatterns as agent_sockets  # noqa: E402  apps must be ready

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": OriginValidator(
            AuthMiddlewareStack(URLRouter([*sandbox_sockets, *agent_sockets])),
            [settings.SITE_URL],
        ),
    }
)
