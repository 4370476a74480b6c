"""Secrets stay out of the log: keys, sessions, tokens, secrets of webhooks and settings, passwords in URLs.

Works on the finished text, so that tracebacks and other people's loggers are covered. Not covered: a secret
that somebody prints in pieces, and what trainers print (their environment holds no secret of the service).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from server.settings import Settings

MASK = "***"
PATTERNS = (
    (re.compile(r"\b(nck_[0-9A-Za-z]{1,16}_)[0-9A-Za-z_-]{8,}"), r"\1" + MASK),
    (re.compile(r"(?i)\b(bearer\s+)(?!nck_)[^\s\"',;]{8,}"), r"\1" + MASK),
    (re.compile(r"\b(whsec_)[0-9A-Za-z+/=]{8,}"), r"\1" + MASK),
    (re.compile(r"(nanochat_session=)[^\s;\"']+"), r"\1" + MASK),
    (re.compile(r"(://[^\s/:@]*:)[^\s@]+(@)"), r"\1" + MASK + r"\2"),
)


class RedactingFormatter(logging.Formatter):
    """A formatter whose output holds no secret."""

    def __init__(self, format: str, secrets: Iterable[str] = ()) -> None:
        super().__init__(format)
        self._secrets = [secret for secret in secrets if len(secret) >= 8]

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), self._secrets)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    for pattern, mask in PATTERNS:
        text = pattern.sub(mask, text)
    return text


def configure_logging(settings: Settings, secrets: Iterable[str] = ()) -> None:
    """Log to standard error at the level of `settings`, without its secrets."""
    own = (settings.worker_token.get_secret_value(), settings.engine_key.get_secret_value(), *secrets)
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", own))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)
