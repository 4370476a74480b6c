"""How a key is made and checked, and the session that a browser gets for it.

A key is `nck_<id>_<secret>`. The secret has 256 random bits, so guessing is hopeless and a plain SHA-256
is all that is stored. A session is `<id>.<until>.<mac>`, signed with that digest: it needs no table, every
replica can check it, and it ends with its key. Not covered: ending one session before its key or its time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

PREFIX = "nck"
SESSION_S = 12 * 3600


def make() -> tuple[str, str, str]:
    """A fresh key: (id, the whole key, digest of its secret)."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return key_id, f"{PREFIX}_{key_id}_{secret}", digest(secret)


def parse(key: str) -> tuple[str, str] | None:
    """(id, secret) of what looks like a key; None for anything else."""
    prefix, _, rest = key.strip().partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != PREFIX or not key_id.isalnum() or len(key_id) > 16 or len(secret) < 32:
        return None
    return key_id, secret


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, stored: str) -> bool:
    """Whether `stored` is the digest of `secret`; takes the same time for every wrong one."""
    return hmac.compare_digest(digest(secret), stored)


def session(key_id: str, stored: str, until: int) -> str:
    """What the browser's cookie holds until `until` (unix seconds)."""
    return f"{key_id}.{until}.{_mac(stored, 'session', key_id, until)}"


def read_session(text: str) -> tuple[str, int, str] | None:
    """(key id, until, mac), not checked; None when it is no session or its time is over."""
    key_id, _, rest = text.partition(".")
    until, _, mac = rest.partition(".")
    if not key_id or not until.isdecimal() or len(until) > 12 or int(until) < time.time():
        return None
    return key_id, int(until), mac


def is_session_of(stored: str, key_id: str, until: int, mac: str) -> bool:
    return hmac.compare_digest(mac.encode(), _mac(stored, "session", key_id, until).encode())


def csrf(stored: str, session_text: str) -> str:
    """What a page of ours sends along and a page of others cannot know."""
    return _mac(stored, "csrf", session_text)


def _mac(stored: str, *parts: object) -> str:
    text = "|".join(str(part) for part in parts)
    return hmac.new(stored.encode(), text.encode(), hashlib.sha256).hexdigest()
