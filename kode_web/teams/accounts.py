"""Who may sign up, and the one-time link that signs in."""

import secrets
from datetime import timedelta

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest
from django.utils import timezone

from .models import SignInLink, User

LINK_LIFE = timedelta(minutes=30)
FIRST_ADMIN = "admin@localhost"


class Adapter(DefaultAccountAdapter):
    """allauth's rules where ours differ."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Open only by setting: whoever is let in runs code on this machine."""
        return bool(settings.SIGNUP_OPEN)


def first_admin() -> User:
    """The first administrator, made when there is none."""
    admin = User.objects.filter(is_superuser=True, is_active=True).first()
    if admin is None:
        email = settings.ADMIN_EMAIL or FIRST_ADMIN
        admin = User.objects.create_superuser(email, settings.ADMIN_PASSWORD or None)
    return admin


def new_link(user: User) -> str:
    """A link that signs the person in, once, within LINK_LIFE."""
    token = secrets.token_urlsafe(32)
    SignInLink.objects.create(
        user=user,
        token_hash=SignInLink.hash(token),
        expires_at=timezone.now() + LINK_LIFE,
    )
    return f"{settings.SITE_URL}/accounts/link/{token}/"


def is_good(token: str) -> bool:
    """Whether the link would sign in now."""
    return SignInLink.objects.filter(
        token_hash=SignInLink.hash(token),
        used_at=None,
        expires_at__gt=timezone.now(),
        user__is_active=True,
    ).exists()


def use_link(request: HttpRequest, token: str) -> User | None:
    """Sign in by the link; None when it was used, is over or never was."""
    now = timezone.now()
    rows = SignInLink.objects.filter(
        token_hash=SignInLink.hash(token), used_at=None, expires_at__gt=now
    )
    if not is_good(token) or not rows.update(used_at=now):
        return None
    link = SignInLink.objects.get(token_hash=SignInLink.hash(token))
    login(request, link.user, "django.contrib.auth.backends.ModelBackend")
    return link.user
