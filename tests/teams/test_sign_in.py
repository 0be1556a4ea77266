"""Ways in: passwords, one-time links, sign-up, and what a first sign-in makes."""

import re
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from kode_web.teams import accounts
from kode_web.teams.models import SignInLink, Team, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada@example.test", "long pass word")


def printed(*args: str) -> str:
    out = StringIO()
    call_command("signinlink", *args, stdout=out)
    return out.getvalue().strip()


def path(link: str) -> str:
    return re.sub(r"^https?://[^/]+", "", link)


def is_in(client: Client) -> bool:
    return client.get("/").status_code == 200


def test_a_password_signs_in(client: Client, ada: User) -> None:
    form = {"login": ada.email, "password": "long pass word"}
    answer = client.post("/accounts/login/", form)
    assert answer.headers["Location"] == "/"
    assert is_in(client)


def test_a_wrong_password_says_so(client: Client, ada: User) -> None:
    form = {"login": ada.email, "password": "wrong"}
    assert "not correct" in client.post("/accounts/login/", form).text
    assert not is_in(client)


def test_a_page_sends_to_the_sign_in_and_back(client: Client) -> None:
    answer = client.get("/sandboxes/")
    assert answer.headers["Location"] == "/accounts/login/?next=/sandboxes/"


def test_a_fragment_reloads_the_page_of_who_signed_out(client: Client) -> None:
    answer = client.get("/sandboxes/", headers={"HX-Request": "true"})
    assert answer.status_code == 204
    assert answer.headers["HX-Refresh"] == "true"


def test_the_link_is_printed_for_the_first_administrator() -> None:
    assert printed().startswith("http://localhost:8000/accounts/link/")
    admin = User.objects.get(is_superuser=True)
    assert admin.email == "admin@localhost"
    assert not admin.has_usable_password()


def test_the_administrator_of_the_settings_needs_no_link(settings: Any) -> None:
    settings.ADMIN_EMAIL, settings.ADMIN_PASSWORD = "root@example.test", "long secret"
    assert printed() == ""
    assert User.objects.get(email="root@example.test").check_password("long secret")


def test_the_link_of_a_stranger_is_refused() -> None:
    with pytest.raises(CommandError, match="No active account"):
        printed("nobody@example.test")


def test_a_link_is_stored_as_a_hash_alone(ada: User) -> None:
    token = accounts.new_link(ada).rstrip("/").rpartition("/")[2]
    assert token not in str(SignInLink.objects.values())


def test_a_link_signs_in_once(client: Client, ada: User) -> None:
    link = path(printed(ada.email))
    assert client.post(link).headers["Location"] == "/"
    assert is_in(client)
    other = Client()
    assert other.post(link).status_code == 410
    assert not is_in(other)


def test_looking_at_a_link_does_not_use_it(client: Client, ada: User) -> None:
    link = path(printed(ada.email))
    assert "data-autosubmit" in client.get(link).text
    assert not is_in(client)
    assert client.post(link).status_code == 302


def test_a_link_ends(client: Client, ada: User) -> None:
    link = path(printed(ada.email))
    SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert client.get(link).status_code == 410
    assert client.post(link).status_code == 410


def test_a_link_of_a_closed_account_is_over(client: Client, ada: User) -> None:
    link = path(printed(ada.email))
    User.objects.update(is_active=False)
    assert client.post(link).status_code == 410


def test_a_link_asks_for_the_second_factor(client: Client, ada: User) -> None:
    TOTP.activate(ada, "JBSWY3DPEHPK3PXP")
    assert Authenticator.objects.filter(user=ada).exists()
    answer = client.post(path(printed(ada.email)))
    assert answer.headers["Location"] == "/accounts/2fa/authenticate/"
    assert not is_in(client)


def test_the_admin_has_the_same_way_in(client: Client) -> None:
    answer = client.get("/admin/login/?next=/admin/")
    assert answer.headers["Location"] == "/accounts/login/?next=%2Fadmin%2F"


def test_sign_up_is_closed(client: Client, ada: User) -> None:
    assert "made by an administrator" in client.get("/accounts/signup/").text
    form = {"email": "x@example.test", "password1": "a9!kd-02jf"}
    client.post("/accounts/signup/", {**form, "password2": form["password1"]})
    assert User.objects.count() == 1


def test_the_very_first_person_may_sign_up(client: Client) -> None:
    form = {"email": "x@example.test", "password1": "a9!kd-02jf"}
    client.post("/accounts/signup/", {**form, "password2": form["password1"]})
    assert is_in(client)
    assert not User.objects.get().is_superuser


def test_sign_up_can_be_opened(client: Client, ada: User, settings: Any) -> None:
    settings.SIGNUP_OPEN = True
    form = {"email": "x@example.test", "password1": "a9!kd-02jf"}
    client.post("/accounts/signup/", {**form, "password2": form["password1"]})
    assert User.objects.count() == 2


def test_the_first_sign_in_makes_the_persons_own_team(
    client: Client, ada: User
) -> None:
    assert not Team.objects.filter(personal_for=ada).exists()
    client.force_login(ada)
    assert Team.objects.get(personal_for=ada).memberships.get().role == "owner"


def test_sign_out_is_a_post(client: Client, ada: User) -> None:
    client.force_login(ada)
    client.get("/accounts/logout/")
    assert is_in(client)
    client.post("/accounts/logout/")
    assert not is_in(client)
