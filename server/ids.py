"""Short random ids: `r_`-like prefixes would need quoting in tags, so one letter leads."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def new_id(prefix: str) -> str:
    """`prefix` and 10 random characters (50 bits): a valid tag and a valid RQ job id."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(10))
