"""What must hold before anything starts."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kode_web import checks

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("site", "preview"),
    [
        ("http://localhost:8000", "localhost:9000"),
        ("http://127.0.0.1:8000", "127.0.0.1:9000"),
        ("https://kode.example.com", "kode.example.com"),
        ("https://kode.example.com", "preview.kode.example.com"),
        ("https://kode.example.com", "preview.example.com"),
        ("https://example.com", "preview.example.com"),
        ("https://kode.example.co.uk", "preview.example.co.uk"),
        ("http://preview.localhost", "preview.localhost"),
        ("http://kode.localhost", "preview.kode.localhost:8000"),
        ("https://KODE.example.com", "x.Example.com."),
    ],
)
def test_previews_on_the_dashboards_site_are_refused(settings, site, preview) -> None:
    settings.SITE, settings.PREVIEW_DOMAIN = urlsplit(site), preview
    assert [message.id for message in checks.preview_site()] == ["kode.E001"]


@pytest.mark.parametrize(
    ("site", "preview"),
    [
        ("http://localhost:8000", "preview.localhost:8000"),
        ("http://kode.localhost:8000", "preview.localhost:8000"),
        ("https://kode.example.com", "kode-previews.net"),
        ("https://kode.example.com", "example-previews.com"),
        ("https://kode.one.co.uk", "two.co.uk"),
    ],
)
def test_previews_on_a_site_of_their_own_are_fine(settings, site, preview) -> None:
    settings.SITE, settings.PREVIEW_DOMAIN = urlsplit(site), preview
    assert checks.preview_site() == []


def test_previews_that_nobody_else_can_open_are_noted(settings) -> None:
    settings.SITE = urlsplit("https://kode.example.com")
    settings.PREVIEW_DOMAIN = "preview.localhost"
    assert [message.id for message in checks.preview_site()] == ["kode.W001"]


def test_the_sdks_debug_mode_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("E2B_DEBUG", "true")
    assert [message.id for message in checks.sdk_environment()] == ["kode.E002"]


@pytest.mark.parametrize(
    ("workers", "redis", "engine", "wrong"),
    [
        ("1", "", "sqlite3", False),
        ("2", "", "sqlite3", True),
        ("2", "redis://r", "sqlite3", True),
        ("2", "", "postgresql", True),
        ("2", "redis://r", "postgresql", False),
    ],
)
def test_several_web_processes_need_shared_state(
    settings, monkeypatch, workers, redis, engine, wrong
) -> None:
    monkeypatch.setattr(sys, "argv", ["uvicorn", "--workers", workers, "--x"])
    settings.REDIS_URL = redis
    engine = f"django.db.backends.{engine}"
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", engine)
    assert bool(checks.processes()) == wrong


@pytest.mark.parametrize("start", ["kode_web.asgi", "django.core.management"])
def test_nothing_starts_with_previews_on_its_site(tmp_path, start) -> None:
    run = {
        "kode_web.asgi": ["-c", "import kode_web.asgi"],
        "django.core.management": ["manage.py", "check"],
    }[start]
    env = {
        "KODE_DATA": str(tmp_path),
        "KODE_SITE_URL": "https://kode.example.com",
        "KODE_PREVIEW_DOMAIN": "preview.example.com",
        "DJANGO_SETTINGS_MODULE": "kode_web.settings",
    }
    done = subprocess.run(
        [sys.executable, *run], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "on the same site as the dashboard" in done.stderr


@pytest.mark.parametrize(
    ("site", "domain", "expected"),
    [
        ("http://localhost:8123", "", "preview.localhost:8123"),
        ("https://kode.example.com", "kode-previews.net", "kode-previews.net"),
        ("http://kode.test:81", "Previews.test", "previews.test:81"),
        ("http://localhost:8000", "preview.localhost:9", "preview.localhost:9"),
    ],
)
def test_previews_come_at_the_dashboards_port(tmp_path, site, domain, expected) -> None:
    env = {
        "KODE_DATA": str(tmp_path),
        "KODE_SITE_URL": site,
        "KODE_PREVIEW_DOMAIN": domain,
    }
    code = "from kode_web import settings; print(settings.PREVIEW_DOMAIN)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected, done.stderr
