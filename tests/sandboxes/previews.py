"""The product behind a real server, as tests of previews ask it."""

from typing import Any

import httpx
from django.test import Client

from sandboxes.models import Sandbox


class Site:
    """The product behind a real server; hosts are named by header."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def get(self, sandbox: Sandbox, path: str = "/", **options: Any) -> httpx.Response:
        return self.ask("GET", sandbox, path, **options)

    def ask(
        self, method: str, sandbox: Sandbox, path: str, **options: Any
    ) -> httpx.Response:
        headers = {"Host": sandbox.preview_host(3000)} | options.pop("headers", {})
        self.http.cookies.clear()
        return self.http.request(method, path, headers=headers, **options)


def click(client: Client, sandbox: Sandbox, port: int = 3000) -> str:
    """The path and query of the address that a click on the port leads to."""
    answer = client.post(f"/sandboxes/{sandbox.code}/ports/{port}/open/", secure=True)
    assert answer.status_code == 302
    address = httpx.URL(answer["Location"])
    assert address.netloc.decode() == sandbox.preview_host(port)
    return address.raw_path.decode()


def enter(site: Site, client: Client, sandbox: Sandbox) -> str:
    """The Cookie header of a browser that was let in."""
    answer = site.get(sandbox, click(client, sandbox))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    return answer.headers["set-cookie"].partition(";")[0]
