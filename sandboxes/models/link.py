"""Links to files that work without an account, for a while."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from kode_web.teams.models import User, new_code

from .sandbox import Sandbox


class DownloadLink(models.Model):
    """A link to a file or folder. Of its key only the hash is kept.

    It is worth what its owner may see: it ends with his right to the sandbox.
    """

    code = models.CharField(max_length=32, unique=True, default=new_code)
    sandbox = models.ForeignKey(Sandbox, on_delete=models.CASCADE, related_name="links")
    owner = models.ForeignKey(User, on_delete=models.CASCADE)
    path = models.TextField()
    key_hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    used_count = models.PositiveIntegerField(default=0)

    class Meta:
        ordering: ClassVar = ["-pk"]

    def __str__(self) -> str:
        return self.path
