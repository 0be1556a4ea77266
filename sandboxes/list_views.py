"""The list of sandboxes: filtered and sorted by its address, many at once."""

from collections.abc import Callable
from dataclasses import dataclass

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.models import User

from . import actions, gateway
from .errors import Invalid, SandboxError
from .models import ALIVE, HOLDING, Sandbox, State
from .views import percent_left, user_of

PER_PAGE = 25
MAX_TEXT = 120
MAX_AT_ONCE = 200
# Value of ?show= -> its words and the states it lists.
SHOWN: dict[str, tuple[str, tuple[State, ...]]] = {
    "": ("All", ALIVE),
    "running": ("Running", HOLDING),
    "paused": ("Paused", (State.PAUSED,)),
    "ended": ("Ended", (State.GONE, State.FAILED)),
}
# Value of ?sort= -> the column; a hyphen before it turns the order round.
SORTS = {
    "used": "used_at",
    "created": "created_at",
    "name": "name",
    "left": "ends_at",
    "template": "template",
}
USUAL_SORT = "-used"


@dataclass(frozen=True)
class Filter:
    """What the address asks for; what it cannot be is left out."""

    show: str
    text: str
    label: str
    template: str
    owner: str
    backend: str
    sort: str

    @classmethod
    def of(cls, request: HttpRequest) -> "Filter":
        """Read the address."""

        def get(name: str) -> str:
            return request.GET.get(name, "").replace("\0", "").strip()[:MAX_TEXT]

        show, sort = get("show"), get("sort")
        return cls(
            show=show if show in SHOWN else "",
            text=get("q"),
            label=get("label"),
            template=get("template"),
            owner="me" if request.GET.get("mine") else get("owner"),
            backend=get("backend"),
            sort=sort if sort.removeprefix("-") in SORTS else USUAL_SORT,
        )

    @property
    def is_narrow(self) -> bool:
        """Whether it leaves anything out beside the state."""
        return any((self.text, self.label, self.template, self.owner, self.backend))

    def rows(self, seen: QuerySet[Sandbox], user: User) -> QuerySet[Sandbox]:
        """Those that fit, whatever their state."""
        if self.text:
            same = Q(sandbox_id=self.text) | Q(code=self.text)
            seen = seen.filter(Q(name__icontains=self.text) | same)
        if self.template:
            seen = seen.filter(template=self.template)
        if self.backend:
            seen = seen.filter(backend=self.backend)
        if self.owner == "me":
            seen = seen.filter(owner=user)
        elif self.owner:
            seen = seen.filter(owner__email=self.owner)
        name, equals, value = self.label.partition("=")
        if equals and name.strip():
            # A transform, not a lookup: the name is somebody's text.
            found = Cast(KeyTextTransform(name.strip(), "metadata"), TextField())
            seen = seen.annotate(label=found).filter(label=value.strip())
        return seen

    def sorted(self, rows: QuerySet[Sandbox]) -> QuerySet[Sandbox]:
        """In the order asked for, and always in the same one."""
        sign = "-" if self.sort.startswith("-") else ""
        return rows.order_by(f"{sign}{SORTS[self.sort.removeprefix('-')]}", "-pk")

    @property
    def order(self) -> dict[str, str]:
        """The column that it is sorted by, and the direction, as ARIA says it."""
        down = self.sort.startswith("-")
        return {self.sort.removeprefix("-"): "descending" if down else "ascending"}

    def turned(self, name: str) -> str:
        """The sort that a click on a column's head asks for."""
        first = "" if name in ("name", "template", "left") else "-"
        usual = f"{first}{name}"
        other = name if first else f"-{name}"
        return other if self.sort == usual else usual


@login_required
@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """The sandboxes that the person sees and the address asks for."""
    user, wanted = user_of(request), Filter.of(request)
    seen = access.visible(user, Sandbox, teams=access.team_ids(user))
    fitting = wanted.rows(seen, user)
    counts = fitting.aggregate(
        **{
            name or "all": Count("pk", filter=Q(state__in=states))
            for name, (_, states) in SHOWN.items()
        }
    )
    rows = wanted.sorted(fitting.filter(state__in=SHOWN[wanted.show][1]))
    # Ids are sorted alone: thousands of whole rows would be carried about.
    paginator = Paginator(rows.values_list("pk", flat=True), PER_PAGE)
    paginator.count = counts[wanted.show or "all"]
    found = paginator.get_page(request.GET.get("page"))
    known = Sandbox.objects.select_related("owner", "team").in_bulk(list(found))
    listed = with_rights(user, [known[pk] for pk in found if pk in known])
    context = {
        "sandboxes": listed,
        "can_choose": any(may and row.is_alive for row, may, _ in listed),
        "page": found,
        "views": [(n, words, counts[n or "all"]) for n, (words, _) in SHOWN.items()],
        "filter": wanted,
        "heads": {name: wanted.turned(name) for name in SORTS},
        "mine": wanted.owner == "me",
        "backends": titles_for(user, wanted.backend),
    }
    return page(request, "sandboxes/list.html", "rows", context)


def titles_for(user: User, chosen: str) -> dict[str, str]:
    """The backends to filter by, name and title; empty when there is but one.

    Those that the person's teams may use, those that ended ones were at, and the
    one chosen.
    """
    every = gateway.backends()
    teams = set(user.memberships.values_list("team_id", flat=True))
    found = {n: b.title for n, b in every.items() if b.team_id in (None, *teams)}
    for name in (
        access.visible(user, Sandbox).values_list("backend", flat=True).distinct()
    ):
        found.setdefault(name, every[name].title if name in every else name)
    if chosen:
        found.setdefault(chosen, chosen)
    return found if len(found) > 1 else {}


def with_rights(user: User, rows: list[Sandbox]) -> list[tuple[Sandbox, bool, int]]:
    """Each row, whether the person manages it, and how much of its time is left.

    Asks for rights once for each kind of row.
    """
    known: dict[tuple[int, bool], bool] = {}
    listed = []
    for row in rows:
        kind = (row.team_id, row.owner_id == user.pk)
        if kind not in known:
            known[kind] = May.MANAGE in access.rights(user, row)
        listed.append((row, known[kind], percent_left(row)))
    return listed


@login_required
@require_POST
def bulk(request: HttpRequest) -> HttpResponse:
    """Pause or dispose several; disposing asks first. Says what was not done."""
    user = user_of(request)
    codes = request.POST.getlist("code")[:MAX_AT_ONCE]
    seen = access.visible(user, Sandbox).filter(code__in=codes).order_by("name", "pk")
    rows = [row for row, may, _ in with_rights(user, list(seen)) if may]
    if not rows:
        raise Invalid("None was chosen that you may change. Choose some first.")
    action = request.POST.get("action")
    if action == "dispose" and not request.POST.get("sure"):
        return page(request, "sandboxes/bulk.html", context={"sandboxes": rows})
    match action:
        case "dispose":
            _each(request, "Disposed", rows, lambda row: actions.dispose(user, row))
        case "pause":
            _each(request, "Paused", rows, lambda row: actions.pause(user, row))
        case _:
            raise Invalid("There is no such action.")
    return redirect("sandboxes:list")


def _each(
    request: HttpRequest,
    word: str,
    rows: list[Sandbox],
    call: Callable[[Sandbox], None],
) -> None:
    done = 0
    for row in rows:
        try:
            call(row)
            done += 1
        except SandboxError as error:
            messages.warning(request, f"{row.name}: {error}")
    if done:
        messages.success(request, f"{word}: {done} of {len(rows)}.")
