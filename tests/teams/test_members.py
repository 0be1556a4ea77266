"""Pages of teams: who sees, adds, changes and removes whom."""

from typing import Any

import pytest
from django.test import Client

from kode_web.teams.models import Membership, Role, Team, User

pytestmark = pytest.mark.django_db
URL = "/teams/house/"


def browser(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def role(house: Any, person: User) -> str | None:
    row = Membership.objects.filter(team=house.team, user=person).first()
    return row.role if row else None


def url_of(house: Any, person: User) -> str:
    return f"{URL}members/{Membership.objects.get(team=house.team, user=person).pk}/"


def test_members_see_each_other(house: Any) -> None:
    html = browser(house.victor).get(URL).text
    assert "alice@example.test" in html
    assert "bob@example.test" in html


def test_a_stranger_equals_missing(house: Any) -> None:
    client = browser(house.charlie)
    there, missing = client.get(URL), client.get("/teams/nothing/")
    assert there.status_code == missing.status_code == 404
    assert (
        client.post(f"{URL}members/", {"email": "x@y.zz", "role": "member"}).status_code
        == 404
    )
    assert client.post(url_of(house, house.bob), {"role": "viewer"}).status_code == 404


def test_an_admin_adds_who_has_an_account(house: Any) -> None:
    form = {"email": "CHARLIE@example.test", "role": "member"}
    answer = browser(house.alice).post(f"{URL}members/", form)
    assert answer.status_code == 302
    assert role(house, house.charlie) == "member"


def test_who_has_no_account_is_named(house: Any) -> None:
    form = {"email": "nobody@example.test", "role": "member"}
    answer = browser(house.alice).post(f"{URL}members/", form)
    assert "No active account has this address" in answer.text
    assert not User.objects.filter(email="nobody@example.test").exists()


def test_an_administrator_makes_the_account_and_gets_a_link(house: Any) -> None:
    User.objects.filter(pk=house.alice.pk).update(is_superuser=True)
    form = {"email": "nobody@example.test", "role": "viewer"}
    html = browser(house.alice).post(f"{URL}members/", form).text
    link = html.partition("<code>http://localhost:8000")[2].partition("</code>")[0]
    newcomer = Client()
    newcomer.post(link)
    assert "House" in newcomer.get("/teams/").text


def test_nobody_is_added_twice(house: Any) -> None:
    form = {"email": "bob@example.test", "role": "admin"}
    answer = browser(house.alice).post(f"{URL}members/", form)
    assert "bob is member here already" in answer.text
    assert role(house, house.bob) == "member"


@pytest.mark.parametrize("person", ["bob", "victor"])
def test_members_and_viewers_change_nobody(house: Any, person: str) -> None:
    client = browser(getattr(house, person))
    form = {"email": "charlie@example.test", "role": "viewer"}
    assert client.post(f"{URL}members/", form).status_code == 403
    assert (
        client.post(url_of(house, house.alice), {"role": "viewer"}).status_code == 403
    )
    assert client.post(url_of(house, house.alice)).status_code == 403
    assert role(house, house.alice) == "admin"


def test_an_admin_changes_roles_below_owner(house: Any) -> None:
    client = browser(house.alice)
    client.post(url_of(house, house.bob), {"role": "viewer"})
    assert role(house, house.bob) == "viewer"
    assert client.post(url_of(house, house.bob), {"role": "owner"}).status_code == 403
    assert client.post(url_of(house, house.bob), {"role": "king"}).status_code == 403


def test_an_admin_leaves_owners_alone(house: Any) -> None:
    Membership.objects.filter(user=house.bob, team=house.team).update(role=Role.OWNER)
    client = browser(house.alice)
    assert client.post(url_of(house, house.bob), {"role": "viewer"}).status_code == 403
    assert client.post(url_of(house, house.bob)).status_code == 403


def test_an_admin_removes_a_member(house: Any) -> None:
    browser(house.alice).post(url_of(house, house.bob))
    assert role(house, house.bob) is None


def test_a_member_may_leave(house: Any) -> None:
    browser(house.victor).post(url_of(house, house.victor))
    assert role(house, house.victor) is None


def test_the_last_keeper_stays(house: Any) -> None:
    answer = browser(house.alice).post(url_of(house, house.alice))
    assert answer.status_code == 403
    assert role(house, house.alice) == "admin"


def test_a_persons_own_team_stays_his(house: Any) -> None:
    own = Team.objects.get(personal_for=house.bob)
    Membership.objects.create(team=own, user=house.alice, role=Role.OWNER)
    row = Membership.objects.get(team=own, user=house.bob)
    for person in (house.alice, house.bob):
        answer = browser(person).post(f"/teams/{own.slug}/members/{row.pk}/")
        assert answer.status_code == 403
    assert own.memberships.filter(user=house.bob).exists()


def test_a_new_team_belongs_to_its_founder(house: Any) -> None:
    answer = browser(house.bob).post("/teams/", {"name": "House"})
    team = Team.objects.exclude(pk=house.team.pk).get(name="House")
    assert answer.headers["Location"] == f"/teams/{team.slug}/"
    assert team.memberships.get().role == "owner"


def test_a_row_of_another_team_is_missing(house: Any) -> None:
    own = Team.objects.get(personal_for=house.charlie)
    row = own.memberships.get()
    answer = browser(house.alice).post(f"{URL}members/{row.pk}/", {"role": "viewer"})
    assert answer.status_code == 404
    assert own.memberships.get().role == "owner"
