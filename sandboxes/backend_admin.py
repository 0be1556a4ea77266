"""Backends in the admin: everything but the key can be seen."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from . import backend_rows
from .errors import Invalid, Unreachable
from .models import BackendRow

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[BackendRow]
    RowForm = forms.ModelForm[BackendRow]
else:
    # Generic to the type checker alone.
    ModelAdmin, RowForm = admin.ModelAdmin, forms.ModelForm

ADDRESS = ("domain", "api_url", "sandbox_url")


class BackendForm(RowForm):
    """A backend's row; the key is written and never read."""

    new_key = forms.CharField(
        label="API key",
        required=False,
        max_length=500,
        widget=forms.PasswordInput({"autocomplete": "off", "size": 60}),
        help_text="Empty: the key stays as it is. Tried out when it is saved.",
    )
    is_sure = forms.BooleanField(
        label="Save although it does not answer",
        required=False,
        help_text="A key that is refused is never saved.",
    )

    class Meta:
        model = BackendRow
        fields = ("name", "title", "kind", *ADDRESS, "team", "is_enabled")

    def clean_new_key(self) -> str:
        """The key as it was meant; empty to leave it."""
        text: str = self.cleaned_data["new_key"]
        try:
            return backend_rows.clean_key(text) if text.strip() else ""
        except Invalid as error:
            raise forms.ValidationError(str(error)) from error

    def _post_clean(self) -> None:
        """Once the row itself is right, try what is new about it."""
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        row, key = self.instance, self.cleaned_data["new_key"]
        moved = not row._state.adding and any(f in self.changed_data for f in ADDRESS)
        if moved and row.api_key and not key:
            self.add_error("new_key", "Enter it again: it is sent to the new address.")
            return
        if not key:
            return
        row.api_key = key
        wrong = backend_rows.tried(row)
        if isinstance(wrong, Unreachable):
            if not self.cleaned_data["is_sure"]:
                self.add_error("is_sure", f"{wrong} Check the address, or tick this.")
        elif wrong is not None:
            self.add_error("new_key", str(wrong))


@admin.register(BackendRow)
class BackendAdmin(ModelAdmin):
    """Backends beside those of the settings."""

    form = BackendForm
    list_display = ("name", "title", "kind", "address", "team", "key", "is_enabled")
    list_filter = ("kind", "is_enabled")
    search_fields = ("name", "title", "domain", "api_url", "team__name")
    autocomplete_fields = ("team",)
    list_select_related = ("team",)
    fieldsets = (
        (None, {"fields": ("name", "title", "kind", "team", "is_enabled")}),
        (
            "Address",
            {
                "fields": ADDRESS,
                "description": "Domain or both URLs; neither for E2B's cloud. Only "
                "https, except on this machine.",
            },
        ),
        ("Key", {"fields": ("new_key", "is_sure", "key", "key_by", "key_at")}),
        (None, {"fields": ("probe", "created_at")}),
    )
    readonly_fields: ClassVar = ("key", "key_by", "key_at", "created_at", "probe")

    @admin.display(description="key")
    def key(self, row: BackendRow) -> str:
        """The end of the key."""
        return row.key_hint or "none"

    @admin.display(description="what works there")
    def probe(self, row: BackendRow) -> str:
        """A link to the page that tries every call."""
        if row.pk is None or not row.api_key:
            return "Once it is saved with a key."
        href = reverse("sandboxes:backend", args=[row.name])
        return format_html('<a href="{}">State and probe</a>', href)

    def get_readonly_fields(
        self, request: HttpRequest, obj: BackendRow | None = None
    ) -> Any:
        """The name stays: sandboxes know their backend by it."""
        return (*self.readonly_fields, *(("name",) if obj else ()))

    def save_model(
        self, request: HttpRequest, obj: BackendRow, form: Any, change: bool
    ) -> None:
        """Note who gave the key."""
        if form.cleaned_data.get("new_key"):
            backend_rows.sign(obj, request.user)  # type: ignore[arg-type]
        super().save_model(request, obj, form, change)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Show why one in use cannot be deleted; nothing is deleted then."""
        rows = list(objs)
        deleted, counts, missing, protected = super().get_deleted_objects(rows, request)
        return deleted, counts, missing, [*protected, *backend_rows.blockers(rows)]

    def delete_queryset(
        self, request: HttpRequest, queryset: QuerySet[BackendRow]
    ) -> None:
        """One by one, so that each is asked whether it is in use."""
        for row in queryset:
            row.delete()
