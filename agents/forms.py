"""The form of a new agent."""

from typing import Any

from django import forms

from kode_web.teams import access
from kode_web.teams.models import Team, User
from sandboxes.models import Sandbox, State

from . import actions
from .models import AgentTemplate, Mode


def _describe(template: AgentTemplate) -> str:
    return f"{template.name}: {template.description}".removesuffix(": ")


class NewAgent(forms.Form):
    """What to do, from which template, where, and how freely."""

    prompt = forms.CharField(
        label="What should it do?",
        max_length=actions.MAX_PROMPT_CHARS,
        widget=forms.Textarea(attrs={"rows": 4, "class": "input", "autofocus": True}),
    )
    template = forms.ModelChoiceField(
        queryset=AgentTemplate.objects.none(),
        to_field_name="code",
        required=False,
        empty_label=None,
        widget=forms.Select(attrs={"class": "input"}),
    )
    sandbox = forms.ModelChoiceField(
        queryset=Sandbox.objects.none(),
        to_field_name="code",
        required=False,
        empty_label="A new one, when it is needed",
        widget=forms.Select(attrs={"class": "input"}),
    )
    mode = forms.ChoiceField(
        choices=[("auto", "Auto"), ("approval", "Approval"), ("readonly", "Read only")],
        initial=Mode.APPROVAL,
        required=False,
        widget=forms.RadioSelect,
    )

    def __init__(self, user: User, team: Team, *args: Any, **kwargs: Any) -> None:
        """Offer what the person may use in this team."""
        super().__init__(*args, **kwargs)
        template, sandbox = self.fields["template"], self.fields["sandbox"]
        assert isinstance(template, forms.ModelChoiceField)
        assert isinstance(sandbox, forms.ModelChoiceField)
        offered = actions.templates(team)
        template.queryset = offered
        template.label_from_instance = _describe  # type: ignore[method-assign, assignment]
        template.initial = offered.filter(slug=actions.DEFAULT_TEMPLATE).first()
        usable = [State.CREATING, State.RUNNING, State.PAUSED]
        sandboxes = access.visible(user, Sandbox).filter(team=team, state__in=usable)
        sandbox.queryset = sandboxes.order_by("-used_at")
