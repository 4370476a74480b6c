"""Which addresses a webhook may lead to, and that the checked one is the one that is called."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from server.settings import Settings
from server.webhooks import address
from server.webhooks.courier import Courier
from tests.server.webhooks.receiver import receiver

NEVER = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.192",
    "198.18.0.1", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1",
    "64:ff9b:1::1", "::127.0.0.1",
]  # fmt: skip
ALWAYS = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101"]


@pytest.mark.parametrize("text", NEVER)
def test_what_is_no_address_of_the_internet_is_refused(text: str) -> None:
    assert not address.is_allowed(ip_address(text), [])


@pytest.mark.parametrize("text", ALWAYS)
def test_addresses_of_the_internet_are_taken(text: str) -> None:
    assert address.is_allowed(ip_address(text), [])


def test_a_network_of_the_settings_is_taken_and_no_other() -> None:
    allowed = address.networks("10.1.0.0/16, ::1/128,")
    taken = {
        text
        for text in (*NEVER, "10.1.2.3", "::ffff:10.1.2.3")
        if address.is_allowed(ip_address(text), allowed)
    }
    assert taken == {"10.1.2.3", "::ffff:10.1.2.3", "::1"}
    with pytest.raises(ValueError, match=r"10\.0\.0"):
        Settings(webhook_networks="10.0.0")


@pytest.mark.parametrize(
    "url", ["http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://localhost/", "http://[::1]/"]
)
async def test_other_spellings_of_this_machine_are_found_out(url: str) -> None:
    with pytest.raises((address.Refused, OSError)):
        await address.checked(address.check_url(url), [])


async def test_one_bad_address_among_good_ones_is_enough() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["1.1.1.1", "127.0.0.1"]

    with pytest.raises(address.Refused, match=r"127\.0\.0\.1"):
        await address.checked(httpx.URL("http://two.example/"), [], resolve)


def courier(resolve: address.Resolve, networks: str = "") -> Courier:
    return Courier(Settings(webhook_networks=networks), cast(Any, None), resolve)


async def send(carrier: Courier, url: str) -> tuple[int | None, str | None]:
    hook = SimpleNamespace(id="h", url=url, secret="whsec_AAAA")
    return await carrier._send(cast(Any, hook), cast(Any, SimpleNamespace(id="m", payload={"type": "ping"})))


async def test_a_name_is_resolved_once_and_its_checked_address_is_called() -> None:
    """DNS rebinding: the second answer would be another one."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.9.9.9"]

    with receiver() as inbox:
        carrier = courier(resolve, "127.0.0.1/32")
        assert await send(carrier, f"http://hook.example:{inbox.port}/x?token=1") == (204, None)
        [(headers, _, path)] = inbox.got
        assert headers["host"] == f"hook.example:{inbox.port}" and path == "/x?token=1"
        assert asked == ["hook.example"]
        status, error = await send(carrier, f"http://hook.example:{inbox.port}/x")
        assert status is None and "10.9.9.9" in str(error) and len(inbox.got) == 1


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with receiver() as inbox:
        assert (await send(courier(resolve, "127.0.0.1/32"), f"http://h.example:{inbox.port}/"))[0] == 204


async def test_tls_is_checked_against_the_name_though_the_address_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = "subjectAltName=DNS:hook.example"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
               "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", names,
               "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    try:
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("needs the command openssl to make a certificate")
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    try:
        port, carrier = server.server_address[1], courier(resolve, "127.0.0.1/32")
        assert "certificate" in str((await send(carrier, f"https://hook.example:{port}/"))[1]).lower()
        trusting = httpx.AsyncClient

        def trust(**more: Any) -> httpx.AsyncClient:
            return trusting(verify=ssl.create_default_context(cafile=str(certificate)), **more)

        monkeypatch.setattr("server.webhooks.courier.httpx.AsyncClient", trust)
        assert await send(carrier, f"https://hook.example:{port}/") == (200, None)
        status, error = await send(carrier, f"https://other.example:{port}/")
        assert status is None and "certificate" in str(error).lower()
    finally:
        server.shutdown()
        server.server_close()
