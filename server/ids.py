"""Short random ids: `r_`-like prefixes would need quoting in tags, so one letter leads."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def is_id(text: str) -> bool:
    """Whether `text` could be an id at all: anything else is unknown without asking the database."""
    return 0 < len(text) <= 16 and text.isascii() and text.isalnum()


def new_id(prefix: str) -> str:
    """`prefix` and 10 random characters (50 bits): a valid tag and a valid RQ job id."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(10))
