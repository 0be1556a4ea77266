"""Forms of sandboxes."""

import re
from typing import Any, ClassVar, cast

from django import forms
from django.conf import settings

from .actions import CreateRequest
from .models import Sandbox
from .offers import Offers

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_LINES = 100
LIFETIMES = ((1800, "30 min"), (3600, "1 h"), (4 * 3600, "4 h"), (24 * 3600, "24 h"))


def _input(**attrs: Any) -> forms.TextInput:
    return forms.TextInput({"class": "input", "autocomplete": "off", **attrs})


def _lines(text: str, *, names: re.Pattern[str] | None) -> dict[str, str]:
    """NAME=value lines as a dict. Raises ValidationError naming the line."""
    found: dict[str, str] = {}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > MAX_LINES:
        raise forms.ValidationError(f"At most {MAX_LINES} lines.")
    for number, line in enumerate(lines, 1):
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or not name or (names and not names.fullmatch(name)):
            raise forms.ValidationError(f"Line {number} is not NAME=value.")
        found[name] = value.strip()
    return found


class NewSandbox(forms.Form):
    """What a new sandbox should be; every field has a default."""

    name = forms.CharField(
        required=False,
        max_length=80,
        widget=_input(spellcheck="false", placeholder="sandbox-1"),
        help_text="Yours to change later.",
    )
    template = forms.ChoiceField(widget=forms.RadioSelect)
    backend = forms.ChoiceField(widget=forms.RadioSelect, required=False)
    timeout_s = forms.TypedChoiceField(
        coerce=int, label="Lifetime", widget=forms.RadioSelect
    )
    on_timeout = forms.ChoiceField(
        label="When time runs out",
        choices=[("pause", "Pause and keep"), ("kill", "Dispose")],
        widget=forms.RadioSelect,
        initial="pause",
    )
    internet = forms.ChoiceField(
        label="Network",
        choices=[("yes", "Full"), ("", "None")],
        widget=forms.RadioSelect,
        initial="yes",
        required=False,
    )
    command_timeout_s = forms.IntegerField(
        label="Seconds for one command of an agent",
        min_value=1,
        max_value=24 * 3600,
        initial=60,
        widget=forms.NumberInput({"class": "input"}),
    )
    workdir = forms.CharField(
        label="Working folder",
        required=False,
        max_length=500,
        widget=_input(spellcheck="false", placeholder="/home/user"),
    )
    envs = forms.CharField(
        label="Environment",
        required=False,
        widget=forms.Textarea(
            {
                "class": "input mono",
                "rows": 3,
                "placeholder": "NAME=value, one a line",
                "spellcheck": "false",
            }
        ),
        help_text="Stored encrypted. Pages show the names, never the values.",
    )
    metadata = forms.CharField(
        label="Labels",
        required=False,
        widget=forms.Textarea(
            {"class": "input mono", "rows": 2, "placeholder": "name=value, one a line"}
        ),
    )

    def __init__(
        self,
        *args: Any,
        offers: Offers,
        **kwargs: Any,
    ) -> None:
        """Offer what the backends have."""
        super().__init__(*args, **kwargs)
        self.offers = offers
        longest = settings.MAX_LIFETIME_S
        lifetimes = [pair for pair in LIFETIMES if pair[0] <= longest]
        default = settings.DEFAULT_TIMEOUT_S
        if default not in dict(lifetimes):
            lifetimes.insert(0, (default, f"{default // 60} min"))
        names = offers.templates
        self._offer("template", [(one, one) for one in names], names[0])
        backends = [(one.name, one.title) for one in offers.backends]
        self._offer("backend", backends, offers.default)
        self._offer("timeout_s", lifetimes, default)

    def _offer(self, name: str, choices: list[Any], initial: object) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices
        field.initial = initial

    def clean_envs(self) -> dict[str, str]:
        """The variables by name."""
        return _lines(self.cleaned_data["envs"], names=NAME)

    def clean_metadata(self) -> dict[str, str]:
        """The labels by name."""
        return _lines(self.cleaned_data["metadata"], names=None)

    def clean(self) -> dict[str, Any]:
        """Refuse a template that its backend does not have."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        template = data.get("template", "")
        if template and not self.offers.has(data.get("backend", ""), template):
            places = ", ".join(self.offers.places(template))
            self.add_error("template", f"{template} is only at {places}. Choose that.")
        return data

    def request(self) -> CreateRequest:
        """What `actions.create` takes."""
        data = self.cleaned_data
        return CreateRequest(**{**data, "internet": bool(data["internet"])})


class Settings(forms.ModelForm):  # type: ignore[type-arg]
    """What can be changed of a sandbox that is there."""

    labels = forms.CharField(
        required=False,
        widget=forms.Textarea(
            {"class": "input mono", "rows": 3, "placeholder": "name=value, one a line"}
        ),
    )
    timeout_s = forms.TypedChoiceField(
        coerce=int, widget=forms.Select({"class": "input"}), required=False
    )
    command_timeout_s = forms.IntegerField(
        min_value=1,
        max_value=24 * 3600,
        widget=forms.NumberInput({"class": "input"}),
        required=False,
    )
    variables = forms.CharField(
        required=False,
        widget=forms.Textarea(
            {
                "class": "input mono",
                "rows": 2,
                "placeholder": "NAME=value, one a line",
                "spellcheck": "false",
                "autocomplete": "off",
            }
        ),
    )

    class Meta:
        model = Sandbox
        fields = ("name",)
        widgets: ClassVar = {"name": _input()}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Show the labels as lines."""
        super().__init__(*args, **kwargs)
        pairs = sorted(self.instance.metadata.items())
        self.initial["labels"] = "\n".join(f"{name}={value}" for name, value in pairs)
        now = self.instance.timeout_s
        choices = [pair for pair in LIFETIMES if pair[0] <= settings.MAX_LIFETIME_S]
        if now not in dict(choices):
            choices.insert(0, (now, f"{now // 60} min"))
        cast(forms.ChoiceField, self.fields["timeout_s"]).choices = choices
        self.initial["timeout_s"] = now
        self.initial["command_timeout_s"] = self.instance.command_timeout_s

    def clean_labels(self) -> dict[str, str]:
        """The labels by name."""
        labels = _lines(self.cleaned_data["labels"], names=None)
        if any(name.startswith("kode_") for name in labels):
            raise forms.ValidationError("Names that begin with kode_ are ours.")
        return labels

    def clean_variables(self) -> dict[str, str]:
        """The variables that are new, or not what they were."""
        return _lines(self.cleaned_data["variables"], names=NAME)

    def save(self, commit: bool = True) -> Sandbox:
        """Keep what the form has; one without a field leaves it as it is."""
        sandbox: Sandbox = self.instance
        data = self.cleaned_data
        if "labels" in self.data:
            sandbox.metadata = data["labels"]
        sandbox.timeout_s = data["timeout_s"] or sandbox.timeout_s
        sandbox.command_timeout_s = (
            data["command_timeout_s"] or sandbox.command_timeout_s
        )
        sandbox.envs = {**sandbox.envs, **data["variables"]}
        sandbox.save(
            update_fields=["name", "metadata", "timeout_s", "command_timeout_s", "envs"]
        )
        return sandbox
