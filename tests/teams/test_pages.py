"""Home and the pages that belong to no app: who sees what, and what errors say."""

import json
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.apps import apps
from django.contrib.sessions.models import Session
from django.core.serializers import serialize
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from agents.models import Agent
from kode_web.teams import access
from kode_web.teams.models import Membership, Role, User
from sandboxes.models import HOLDING, Sandbox, State

pytestmark = pytest.mark.django_db
PAGES = ["/", "/me/", "/teams/", "/teams/house/", "/templates/", "/accounts/2fa/"]


def browser(person: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(person)
    return client


def fill(house: Any, state: str = State.RUNNING, **fields: Any) -> Sandbox:
    """A row as it stands in the database; no machine is behind it."""
    fields = {"name": "box", "owner": house.bob, "team": house.team} | fields
    key = f"key-{Sandbox.objects.count()}"
    return Sandbox.objects.create(
        backend="local", request_key=key, state=state, **fields
    )


@pytest.mark.parametrize("url", PAGES)
def test_each_page_works(house: Any, url: str) -> None:
    assert browser(house.victor).get(url).status_code == 200


@pytest.mark.parametrize("url", PAGES)
def test_no_page_without_signing_in(client: Client, house: Any, url: str) -> None:
    answer = client.get(url)
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("url", ["/", "/me/", "/teams/", "/templates/"])
def test_pages_answer_known_methods_alone(house: Any, url: str) -> None:
    assert browser(house.bob).delete(url).status_code == 405


def test_home_lists_what_the_person_sees(house: Any) -> None:
    fill(house, name="shared-box")
    assert "shared-box" in browser(house.victor).get("/").text
    assert "shared-box" not in browser(house.charlie).get("/").text


def test_home_escapes_names(house: Any) -> None:
    fill(house, name="<img src=x onerror=alert(1)>")
    html = browser(house.bob).get("/").text
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html


def test_words_start_an_agent(house: Any) -> None:
    answer = browser(house.bob).post("/", {"prompt": "Count the files"})
    agent = Agent.objects.get()
    assert answer.headers["Location"] == f"/agents/{agent.code}/"
    assert agent.team == access.own_team(house.bob)


def test_nothing_starts_a_terminal(house: Any, backend: Any) -> None:
    client = browser(house.bob)
    answer = client.post("/", {"prompt": "", "terminal": "1", "key": "k1"})
    sandbox = Sandbox.objects.get()
    assert answer.headers["Location"] == f"/sandboxes/{sandbox.code}/"
    assert sandbox.terminals.get().command == ""


def test_the_same_form_twice_makes_one_sandbox(house: Any, backend: Any) -> None:
    client = browser(house.bob)
    form = {"prompt": "$ python3 -V", "key": "k2"}
    first, second = client.post("/", form), client.post("/", form)
    assert first.headers["Location"] == second.headers["Location"]
    assert Sandbox.objects.get().terminals.get().command == "python3 -V"


def test_what_starts_goes_to_the_chosen_team(house: Any) -> None:
    browser(house.bob).post("/", {"prompt": "Count", "team": "house"})
    assert Agent.objects.get().team == house.team


@pytest.mark.parametrize(("person", "status"), [("victor", 403), ("charlie", 404)])
def test_nobody_starts_where_he_may_not(house: Any, person: str, status: int) -> None:
    client = browser(getattr(house, person))
    answer = client.post("/", {"prompt": "Count", "team": "house"})
    assert answer.status_code == status
    assert not Agent.objects.exists()


@pytest.fixture
def full(house: Any, settings: Any) -> Sandbox:
    """The only place of the house is taken by alice's sandbox."""
    settings.MAX_RUNNING_SANDBOXES = 1
    settings.RUNTIME_URL = "http://127.0.0.1:9"
    settings.DEFAULT_BACKEND = "local"
    return fill(house, name="holder", owner=house.alice)


def test_a_refusal_names_the_limit_and_who_holds_it(house: Any, full: Sandbox) -> None:
    form = {"prompt": "$ ls", "team": "house", "key": "again-1"}
    answer = browser(house.bob).post("/", form)
    assert answer.status_code == 429
    assert "holder" in answer.text
    assert "ask alice" in answer.text
    assert 'name="key" value="again-1"' in answer.text


def test_a_refusal_offers_what_the_person_may_end(house: Any, full: Sandbox) -> None:
    answer = browser(house.alice).post("/", {"prompt": "$ ls", "team": "house"})
    assert f'action="/sandboxes/{full.code}/pause/"' in answer.text
    assert f'href="/sandboxes/{full.code}/dispose/"' in answer.text


def test_a_refusal_is_a_fragment_for_htmx(house: Any, full: Sandbox) -> None:
    form = {"prompt": "$ ls", "team": "house"}
    answer = browser(house.bob).post("/", form, headers={"HX-Request": "true"})
    assert answer.status_code == 429
    assert answer.headers["HX-Retarget"] == "#notice"
    assert "<html" not in answer.text


def test_a_refusal_is_json_for_programs(house: Any, full: Sandbox) -> None:
    form = {"prompt": "$ ls", "team": "house"}
    accept = {"Accept": "application/json"}
    answer = browser(house.bob).post("/", form, headers=accept)
    assert answer.status_code == 429
    assert "1 of 1 running sandboxes" in json.loads(answer.text)["error"]


def test_a_backend_that_is_not_there_is_named(house: Any) -> None:
    answer = browser(house.bob).post("/", {"terminal": "1"})
    assert answer.status_code == 503
    assert "./kode up" in answer.text


def test_a_missing_page_leads_home(house: Any) -> None:
    for client in (Client(), browser(house.bob)):
        answer = client.get("/nothing/")
        assert answer.status_code == 404
        assert "Nothing here" in answer.text


def test_an_error_of_ours_keeps_its_trace_to_itself(
    house: Any, monkeypatch: Any
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("the secret is 12345")

    monkeypatch.setattr("kode_web.home_views.gateway.backends_of", broken)
    client = browser(house.bob, raise_request_exception=False)
    answer = client.get("/templates/")
    assert answer.status_code == 500
    assert "12345" not in answer.text
    assert "Something broke here" in answer.text


def test_templates_come_from_the_backend(house: Any, backend: Any) -> None:
    html = browser(house.bob).get("/templates/").text
    assert "This machine" in html
    assert "template=host" in html
    assert "Build base" not in html


def test_only_an_administrator_builds(house: Any) -> None:
    assert browser(house.alice).post("/templates/base/build/").status_code == 403


def test_a_silent_backend_is_an_empty_shelf(house: Any, settings: Any) -> None:
    settings.RUNTIME_URL = "http://127.0.0.1:9"
    answer = browser(house.bob).get("/templates/")
    assert answer.status_code == 200
    assert "does not answer" in answer.text


def test_a_name_can_be_changed(house: Any) -> None:
    browser(house.bob).post("/me/", {"first_name": "Bob", "last_name": "Tal"})
    house.bob.refresh_from_db()
    assert house.bob.display_name == "Bob Tal"


def test_a_profile_changes_nothing_else(house: Any) -> None:
    form = {"first_name": "B", "is_superuser": "1", "email": "x@y.zz", "is_staff": "1"}
    browser(house.bob).post("/me/", form)
    house.bob.refresh_from_db()
    assert not house.bob.is_superuser
    assert not house.bob.is_staff
    assert house.bob.email == "bob@example.test"


def test_a_viewer_of_everything_gets_no_composer(house: Any) -> None:
    Membership.objects.filter(user=house.victor).update(role=Role.VIEWER)
    assert 'name="prompt"' not in browser(house.victor).get("/").text


def test_the_rail_shows_the_use_of_the_busiest_team(house: Any) -> None:
    fill(house, state=HOLDING[0])
    html = browser(house.bob).get("/me/").text
    assert "1 of 20 running" in html
    assert "House" in html


def test_the_theme_comes_from_the_cookie_if_it_is_one(house: Any) -> None:
    client = browser(house.bob)
    client.cookies["theme"] = "dark"
    assert '<html lang="en" data-theme="dark">' in client.get("/").text
    client.cookies["theme"] = '"><script>'
    assert '<html lang="en">' in client.get("/").text


def posts(patterns: list[Any], before: str = "") -> list[str]:
    """Every address of ours, with something in each place."""
    found = []
    for one in patterns:
        if isinstance(one, URLResolver):
            if str(one.pattern) != "admin/":
                found += posts(one.url_patterns, before + str(one.pattern))
        elif isinstance(one, URLPattern):
            found.append("/" + before + str(one.pattern))
    return found


def addresses() -> list[str]:
    values = {"int": "1", "str": "a" * 32, "slug": "house", "path": "x"}
    urls = []
    for url in posts(get_resolver().url_patterns):
        for kind, value in values.items():
            while f"<{kind}:" in url:
                head, _, rest = url.partition(f"<{kind}:")
                url = head + value + rest.partition(">")[2]
        if "(" not in url and "<" not in url:
            urls.append(url)
    return urls


def rows() -> dict[str, str]:
    """All that the database holds by model, but sessions.

    allauth makes a person's EmailAddress when one of its pages first needs it.
    """
    models = [m for m in apps.get_models() if m not in (Session, EmailAddress)]
    return {
        m._meta.label: serialize("json", m._default_manager.order_by("pk"))
        for m in models
    }


def test_looking_changes_nothing(house: Any) -> None:
    sandbox = fill(house, state=State.PAUSED)
    client = browser(house.bob, raise_request_exception=False)
    before = rows()
    for url in addresses():
        client.get(url.replace("a" * 32, sandbox.code))
    after = rows()
    assert {label for label in after if after[label] != before[label]} == set()


def test_every_post_without_a_token_is_refused(house: Any) -> None:
    client = browser(house.bob, enforce_csrf_checks=True)
    urls = addresses()
    assert len(urls) > 30
    answers = {url: client.post(url).status_code for url in urls}
    assert {u: s for u, s in answers.items() if s != 403} == {}


def hits(person: User, words: str) -> str:
    headers = {"HX-Request": "true", "HX-Target": "found"}
    return browser(person).get("/find/", {"q": words}, headers=headers).text


def test_find_lists_what_the_person_sees(house: Any) -> None:
    box = fill(house, name="Nightly import")
    assert f'href="/sandboxes/{box.code}/"' in hits(house.victor, "import night")
    assert "Nothing fits" in hits(house.charlie, "import night")


def test_find_offers_what_the_person_may_do(house: Any) -> None:
    box = fill(house, name="Nightly import")
    assert f'action="/sandboxes/{box.code}/pause/"' in hits(house.bob, "pause")
    assert "/pause/" not in hits(house.victor, "pause")


def test_a_name_alone_does_nothing(house: Any) -> None:
    fill(house, name="Nightly import")
    assert "<form" not in hits(house.bob, "nightly")
    assert "Extend Nightly import" in hits(house.bob, "ext night")


def test_find_works_as_a_page(house: Any) -> None:
    html = browser(house.bob).get("/find/?q=templ").text
    assert "<html" in html
    assert 'class="hit" href="/templates/"' in html
