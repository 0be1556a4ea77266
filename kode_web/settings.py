"""All settings. Starts with no variable set; each variable is in the README."""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url
from django.utils.csp import CSP

from kode_web.environment import env_bool, env_int, env_list, env_secret, env_str

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env_str("KODE_DATA", str(BASE_DIR / ".kode"))).absolute()
DEBUG = env_bool("KODE_DEBUG", default=False)
SECRET_KEY = env_secret("KODE_SECRET_KEY", DATA_DIR)
# Keys that encrypt secrets at rest, newest first, separated by ";".
FIELD_KEYS = env_secret("KODE_SECRET_KEYS", DATA_DIR)

# Where people reach the dashboard. Links, origins and hosts derive from it.
SITE_URL = env_str("KODE_SITE_URL", "http://localhost:8000").rstrip("/")
SITE = urlsplit(SITE_URL)
ALLOWED_HOSTS = [SITE.hostname or "localhost", *env_list("KODE_ALLOWED_HOSTS")]
CSRF_TRUSTED_ORIGINS = [SITE_URL]
# Behind a TLS proxy that sets X-Forwarded-Proto and drops what clients send of it.
TRUST_PROXY = env_bool("KODE_TRUST_PROXY", default=False)
if TRUST_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Previews live on a site of their own: hosts <port>-<code>.<this domain>, at the
# dashboard's port unless it names another.
PREVIEW_DOMAIN = env_str("KODE_PREVIEW_DOMAIN", "preview.localhost").lower()
if ":" not in PREVIEW_DOMAIN and SITE.port not in (None, 80, 443):
    PREVIEW_DOMAIN += f":{SITE.port}"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_htmx",
    "channels",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "kode_web",
    "kode_web.teams",
    "sandboxes",
    "agents",
]
if "runserver" in sys.argv:
    # Importing daphne costs every other command a second; only runserver needs it.
    INSTALLED_APPS.insert(0, "daphne")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "kode_web.middleware.errors",
]

ROOT_URLCONF = "kode_web.urls"
ASGI_APPLICATION = "kode_web.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.csp",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "kode_web.chrome.chrome",
            ],
        },
    },
]

DATABASES = {
    "default": dj_database_url.parse(
        env_str("DATABASE_URL", f"sqlite:///{DATA_DIR / 'kode.sqlite3'}"),
        conn_max_age=60,
        conn_health_checks=True,
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
    # IMMEDIATE: writers queue for the lock instead of failing half way.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env_str("REDIS_URL")
if REDIS_URL:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL]},
        }
    }
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
        }
    }
else:
    CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
    }

AUTH_USER_MODEL = "teams.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
ADMIN_EMAIL = env_str("KODE_ADMIN_EMAIL")
ADMIN_PASSWORD = env_str("KODE_ADMIN_PASSWORD")
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_ADAPTER = "kode_web.teams.accounts.Adapter"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
SIGNUP_OPEN = env_bool("KODE_SIGNUP_OPEN", default=False)
MAILERS = {
    "default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"},
}

# Browsers accept Secure cookies on http://localhost; a plain-http LAN needs 0.
SECURE_COOKIES = env_bool("KODE_SECURE_COOKIES", default=True)
SESSION_COOKIE_NAME = "__Host-kode" if SECURE_COOKIES else "kode"
SESSION_COOKIE_SECURE = SECURE_COOKIES
CSRF_COOKIE_SECURE = SECURE_COOKIES
CSRF_USE_SESSIONS = True
SECURE_SSL_REDIRECT = False
SECURE_HSTS_SECONDS = 3600 if SITE.scheme == "https" else 0
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_CSP = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF],
    # xterm.js draws colours by inline style.
    "style-src": [CSP.SELF, CSP.UNSAFE_INLINE],
    "img-src": [CSP.SELF, "data:"],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF, SITE_URL.replace("http", "ws", 1)],
    "frame-src": [f"{SITE.scheme}://*.{PREVIEW_DOMAIN}"],
    # A click on a port is a form that ends on the preview's host.
    "form-action": [CSP.SELF, f"{SITE.scheme}://*.{PREVIEW_DOMAIN}"],
    "base-uri": [CSP.NONE],
    "object-src": [CSP.NONE],
    "frame-ancestors": [CSP.NONE],
}
SILENCED_SYSTEM_CHECKS = [
    "mail.E001",  # Accounts work without mail: links are handed over by people.
    "security.W008",  # The TLS proxy in front redirects, not Django.
    "security.W005",  # HSTS for subdomains and preload is the owner's
    "security.W021",  # decision about a whole domain.
    *(["security.W004"] if SITE.scheme == "http" else []),
]
# Uploads of files above this are refused; other requests above the second.
MAX_UPLOAD_BYTES = env_int("KODE_MAX_UPLOAD_MB", 100) << 20
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 << 20

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage",
    },
}
# The files are served from where they are: there is nothing to collect.
WHITENOISE_USE_FINDERS = True

# The sandboxes' backends. `local` is there when the runtime's URL is given.
RUNTIME_URL = env_str("KODE_RUNTIME_URL")
RUNTIME_KEY_FILE = env_str("KODE_RUNTIME_KEY_FILE", str(DATA_DIR / "runtime.key"))
E2B_API_KEY = env_str("E2B_API_KEY")
E2B_DOMAIN = env_str("E2B_DOMAIN", "e2b.app")
# Marks our machines at a backend that others use too. Never change it later.
INSTANCE_ID = env_secret("KODE_INSTANCE_ID", DATA_DIR)[:32]
DEFAULT_BACKEND = env_str("KODE_BACKEND", "local" if RUNTIME_URL else "e2b")
DEFAULT_TIMEOUT_S = env_int("KODE_DEFAULT_TIMEOUT_S", 3600)
MAX_LIFETIME_S = env_int("KODE_MAX_LIFETIME_S", 24 * 3600)
MAX_RUNNING_SANDBOXES = env_int("KODE_MAX_RUNNING_SANDBOXES", 20)
MAX_RUNNING_AGENTS = env_int("KODE_MAX_RUNNING_AGENTS", 10)

# The language model. Without a key the offline command model answers.
MODEL = env_str("KODE_MODEL")
ANTHROPIC_API_KEY = env_str("ANTHROPIC_API_KEY")
OPENAI_API_KEY = env_str("OPENAI_API_KEY")
OPENAI_BASE_URL = env_str("OPENAI_BASE_URL")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env_str("KODE_LOG_LEVEL", "INFO")},
    # These print URLs and headers, and so keys.
    "loggers": {
        name: {"level": "WARNING"} for name in ("httpx", "httpcore", "e2b", "openai")
    },
}
