"""The product's settings on a data folder of the test run alone."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

for name in [n for n in os.environ if n.startswith(("KODE_", "E2B_"))]:
    # KODE_REQUIRE and KODE_CHROMIUM speak to the tests, not to the product.
    if name not in ("KODE_REQUIRE", "KODE_CHROMIUM"):
        del os.environ[name]
for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "REDIS_URL"):
    os.environ.pop(name, None)
_folder = tempfile.mkdtemp(prefix="kode-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
os.environ["KODE_DATA"] = _folder

from kode_web.settings import *  # noqa: E402, F403  the environment comes first
from kode_web.settings import DATABASES  # noqa: E402

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Threads and child processes of a test must see one database.
    DATABASES["default"]["TEST"] = {"NAME": str(Path(_folder) / "test.sqlite3")}
