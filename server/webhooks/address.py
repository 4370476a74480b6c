"""Where a webhook may lead: an address of the internet, or of a network that the settings allow.

A name is resolved once, every address it has is checked, and the connection goes to a checked address: a
name that points elsewhere a moment later changes nothing. Not covered: a receiver that is public and passes
on what it gets.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]
#: addresses of the IPv4 internet inside IPv6, as translators at the edge of a network use them
NAT64 = ip_network("64:ff9b::/96")
#: not the internet either, which `is_global` of older Pythons does not know of all of these
PRIVATE = [ip_network(text) for text in ("192.0.0.0/24", "64:ff9b:1::/48", "2001:db8::/32", "::/96")]


class Refused(Exception):
    """One sentence: why nothing is sent there."""


def networks(text: str) -> list[Network]:
    """Networks of a comma-separated setting. Raises ValueError, which names the wrong one."""
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def check_url(url: str) -> httpx.URL:
    """The URL, if it is one that a webhook may have. Raises Refused."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Refused("this is no URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Refused("the URL must begin with http:// or https:// and name a host")
    if parsed.userinfo:
        raise Refused("a URL with a user name or password is not taken: put a token into its path or query")
    return parsed


def is_allowed(address: Address, allowed: list[Network]) -> bool:
    """Whether messages may go to `address`: it is public, or in one of the `allowed` networks."""
    if any(address.version == network.version and address in network for network in allowed):
        return True
    if isinstance(address, IPv6Address) and (inner := _inner(address)) is not None:
        return is_allowed(inner, allowed)
    if any(address.version == network.version and address in network for network in PRIVATE):
        return False
    if address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local:
        return False
    return address.is_global


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that this one stands for."""
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]


async def checked(url: httpx.URL, allowed: list[Network], resolve: Resolve | None = None) -> list[str]:
    """Addresses of the URL's host, all of them allowed. Raises Refused, and OSError when it has none."""
    port = url.port or (443 if url.scheme == "https" else 80)
    found = await (resolve or _resolve)(url.host, port)
    if not found:
        raise OSError(f"{url.host} has no address")
    for text in found:
        if not is_allowed(ip_address(text), allowed):
            raise Refused(
                f"{url.host} is at {text}, which is no address of the internet: "
                "NANOCHAT_WEBHOOK_NETWORKS allows one"
            )
    return found


async def _resolve(host: str, port: int) -> list[str]:
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in entries))
