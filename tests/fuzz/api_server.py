"""`python -m server`, but webhooks reach nobody: a fuzzer makes up addresses, and some are somebody's.

Numbers are looked at as ever, so that private ones are refused; a name has no address here, and neither has a
number of the internet.
"""

from __future__ import annotations

from ipaddress import ip_address

from server import __main__
from server.webhooks import address


async def nobody(host: str, port: int) -> list[str]:
    """The addresses of a host: its own if it is a number that is refused anyway. Raises OSError."""
    del port
    try:
        number = ip_address(host)
    except ValueError:
        raise OSError(f"{host} has no address here") from None
    if address.is_allowed(number, []):
        raise OSError(f"{host} is somebody's")
    return [str(number)]


if __name__ == "__main__":
    address._resolve = nobody
    raise SystemExit(__main__.main())
