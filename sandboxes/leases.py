"""Tasks that only one process does at a time, in the database's time."""

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import DateTimeField, ExpressionWrapper, Q
from django.db.models.functions import Now

from .models import Lease


def hold(name: str, holder: str, life: timedelta) -> bool:
    """Take the task, or keep it, for so long; False when another process has it."""
    until = ExpressionWrapper(Now() + life, output_field=DateTimeField())
    free = Lease.objects.filter(Q(holder=holder) | Q(until__lt=Now()), name=name)
    if free.update(holder=holder, until=until):
        return True
    if Lease.objects.filter(name=name).exists():
        return False
    try:
        with transaction.atomic():
            Lease.objects.create(name=name, holder=holder, until=until)
    except IntegrityError:
        # Another process was the first of all.
        return False
    return True


def release(name: str, holder: str) -> None:
    """Give the task back."""
    Lease.objects.filter(name=name, holder=holder).delete()
