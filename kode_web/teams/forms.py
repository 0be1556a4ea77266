"""Forms of people and teams."""

from typing import TYPE_CHECKING, ClassVar

from django import forms

from .models import Role, User

if TYPE_CHECKING:
    UserForm = forms.ModelForm[User]
else:
    # Generic to the type checker alone.
    UserForm = forms.ModelForm


class NewTeam(forms.Form):
    """A team's name."""

    name = forms.CharField(
        label="Name of the new team",
        max_length=80,
        widget=forms.TextInput(
            {
                "class": "input",
                "autocomplete": "off",
                "placeholder": "Name of a new team",
            }
        ),
    )


class NewMember(forms.Form):
    """A person by e-mail address, and his role."""

    email = forms.EmailField(
        label="E-mail address",
        widget=forms.EmailInput(
            {"class": "input", "placeholder": "E-mail of the person to add"}
        ),
    )
    role = forms.ChoiceField(choices=Role.choices, initial=Role.MEMBER)


class Profile(UserForm):
    """How others see the person."""

    class Meta:
        model = User
        fields = ("first_name", "last_name")
        widgets: ClassVar = {
            "first_name": forms.TextInput({"class": "input"}),
            "last_name": forms.TextInput({"class": "input"}),
        }
