"""Whether anybody but this machine's users can reach the service, and by which names."""

from __future__ import annotations

from server.settings import Settings

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def names(text: str) -> frozenset[str]:
    """The entries of a comma-separated setting."""
    return frozenset(part.strip().lower() for part in text.split(",") if part.strip())


def is_exposed(settings: Settings) -> bool:
    """True when it listens on more than loopback, or answers to the name of a proxy in front of it."""
    return settings.host not in LOOPBACK or bool(names(settings.allowed_hosts) - LOOPBACK)


def known_hosts(settings: Settings) -> frozenset[str] | None:
    """Names that a request's Host may have; None: any. Port numbers are not looked at."""
    if settings.allowed_hosts or settings.host in LOOPBACK:
        return LOOPBACK | names(settings.allowed_hosts) | {settings.host}
    return None
