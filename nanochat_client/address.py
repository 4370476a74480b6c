"""Where the service is and the key for it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from nanochat_client.errors import ConnectionFailed

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Address:
    """Absent parts come from NANOCHAT_URL and NANOCHAT_API_KEY. Raises ConnectionFailed for no such URL."""

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self.url = (url or os.environ.get("NANOCHAT_URL") or DEFAULT_URL).rstrip("/")
        self.api_key = api_key or os.environ.get("NANOCHAT_API_KEY") or None
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConnectionFailed(
                f"{self.url!r} is no address of a service; it looks like {DEFAULT_URL}", code="invalid_url"
            )
        self.is_local = parts.hostname in LOOPBACK

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def for_openai(self) -> dict[str, str]:
        """Arguments of OpenAI's clients; they want some key, also where none is asked for."""
        return {"base_url": f"{self.url}/v1", "api_key": self.api_key or "none"}

    def unreachable(self, more: str = "or point NANOCHAT_URL at it") -> ConnectionFailed:
        return ConnectionFailed(
            f"nothing answers at {self.url}: start it with `nanochat up`, {more}", code="unreachable"
        )
