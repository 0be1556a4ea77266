"""People and teams in Django's admin, behind the product's own sign-in."""

from typing import TYPE_CHECKING, Any, ClassVar

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from .models import Membership, Team, User

admin.site.site_header = admin.site.site_title = "Kode Web"
# One way in, with the second factor, for everybody.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    Inline = admin.TabularInline[Any, Any]
    People = UserAdmin[User]
else:
    # Generic to the type checker alone.
    ModelAdmin, Inline, People = admin.ModelAdmin, admin.TabularInline, UserAdmin


class MembershipInline(Inline):
    """Members of a team, or teams of a person."""

    model = Membership
    extra = 0
    autocomplete_fields = ("user", "team")


@admin.register(User)
class PersonAdmin(People):
    """Accounts; passwords are set and never shown."""

    ordering = ("email",)
    list_display = ("email", "first_name", "last_name", "is_staff", "last_login")
    search_fields = ("email", "first_name", "last_name")
    fieldsets = (
        (None, {"fields": ("email", "password")}),
        ("Name", {"fields": ("first_name", "last_name")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (None, {"fields": ("email", "usable_password", "password1", "password2")}),
    )
    readonly_fields = ("last_login", "date_joined")
    inlines: ClassVar = [MembershipInline]


@admin.register(Team)
class TeamAdmin(ModelAdmin):
    """Teams and their members."""

    list_display = ("name", "slug", "personal_for", "created_at")
    search_fields = ("name", "slug")
    readonly_fields = ("code", "created_at")
    autocomplete_fields = ("personal_for",)
    inlines: ClassVar = [MembershipInline]
