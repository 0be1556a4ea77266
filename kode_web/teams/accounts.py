"""Who may sign up, and the one-time link that signs in."""

import secrets
from datetime import timedelta

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.utils import perform_login
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from .access import own_team
from .models import SignInLink, User

LINK_LIFE = timedelta(minutes=30)
FIRST_ADMIN = "admin@localhost"


class Adapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """allauth's rules where ours differ."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """As `is_open` says."""
        return is_open()


def is_open() -> bool:
    """Whether someone may make an account: by setting, or the very first person.

    Whoever is let in runs code on this machine, so nobody else comes by himself.
    """
    return bool(settings.SIGNUP_OPEN) or not User.objects.exists()


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


def use_link(request: HttpRequest, token: str) -> HttpResponse | None:
    """Sign in by the link; None when it was used, is over or never was.

    It goes the way of every sign-in, so that a second factor is asked for.
    """
    now = timezone.now()
    rows = SignInLink.objects.filter(
        token_hash=SignInLink.hash(token), used_at=None, expires_at__gt=now
    )
    if not is_good(token) or not rows.update(used_at=now):
        return None
    link = SignInLink.objects.get(token_hash=SignInLink.hash(token))
    link.user.backend = "django.contrib.auth.backends.ModelBackend"
    answer: HttpResponse = perform_login(request, link.user, redirect_url="/")
    return answer


def welcome(sender: object, user: User, **_: object) -> None:
    """At a sign-in: the person has a team of his own from then on."""
    own_team(user)
