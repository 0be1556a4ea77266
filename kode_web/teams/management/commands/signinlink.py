"""Prints a one-time sign-in link."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from kode_web.teams import accounts
from kode_web.teams.models import User


class Command(BaseCommand):
    help = "Print a link that signs a person in once: by default the administrator."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email", nargs="?", help="of whom; default: administrator")

    def handle(self, *args: Any, **options: Any) -> None:
        email = options["email"]
        if email:
            user = User.objects.filter(email__iexact=email, is_active=True).first()
            if user is None:
                raise CommandError(f"No active account has the address {email}.")
        else:
            user = accounts.first_admin()
            if settings.ADMIN_PASSWORD and settings.ADMIN_EMAIL:
                # He signs in with the password that was given; no link is needed.
                return
        self.stdout.write(accounts.new_link(user))
