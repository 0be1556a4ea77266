"""`manage.py checksandbox`, the proof of `./kode up --check`."""

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from sandboxes.models import Sandbox, State
from tests.local.server import Runtime

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_check_runs_a_command_and_leaves_nothing(backend: Runtime) -> None:
    output = io.StringIO()
    call_command("checksandbox", stdout=output)
    assert output.getvalue().startswith("Hello from sandbox user@")
    sandbox = Sandbox.objects.get()
    assert sandbox.state == State.GONE
    assert backend.call("GET", f"/sandboxes/{sandbox.sandbox_id}").status == 404


def test_a_check_fails_without_a_backend(settings: Any) -> None:
    settings.DEFAULT_BACKEND, settings.RUNTIME_URL = "local", ""
    with pytest.raises(CommandError, match="no sandbox"):
        call_command("checksandbox", stdout=io.StringIO())
