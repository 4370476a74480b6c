"""Delivers what is in the outbox: at least once, with growing pauses, to a checked address.

One message at a time per webhook, several webhooks at once, so that a receiver that hangs holds up nobody
else. A receiver answers 2xx within TIMEOUT_S; anything else, a redirect too, is a try that failed. Order is
kept as long as tries succeed. Several servers on one database share the work: a try is taken by a guarded
UPDATE.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import ssl
import time
from datetime import timedelta
from functools import partial

import httpx

from server.app_version import VERSION
from server.background import Periodic, end
from server.db import Database
from server.models import Webhook, WebhookDelivery, now
from server.settings import Settings
from server.webhooks import address, repository, signing

log = logging.getLogger(__name__)
EVERY_S = 1.0
TIMEOUT_S = 10.0
#: pauses before the second and later tries; about a day, then it is given up
BACKOFF_S = (5, 30, 120, 600, 3600, 14_400, 36_000, 36_000)
AT_ONCE = 16
ANSWER_BYTES = 64 * 1024
SWEEP_S = 60.0
KEEP, WAITING, KEEP_DAYS = 200, 1000, 14


class Courier:
    """Runs in the server's event loop, one per process."""

    def __init__(self, settings: Settings, db: Database, resolve: address.Resolve | None = None) -> None:
        self._db, self._resolve = db, resolve
        self._allowed = address.networks(settings.webhook_networks)
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._looks = Periodic("webhooks", EVERY_S, self.look)
        self._swept = time.monotonic()

    async def start(self) -> None:
        await self._looks.start()

    async def stop(self) -> None:
        await self._looks.stop()
        await end(*self._busy.values())

    async def check(self, url: str) -> None:
        """Raises Refused when nothing would ever be sent to `url`. A name without an address may get one."""
        with contextlib.suppress(OSError, TimeoutError, UnicodeError):
            async with asyncio.timeout(3):
                await address.checked(address.check_url(url), self._allowed, self._resolve)

    async def look(self) -> None:
        """Begin to send what is due; keep the record small."""
        async with self._db.read() as session:
            found = await repository.due(session, list(self._busy), AT_ONCE - len(self._busy))
            hooks = {
                delivery.webhook_id: await session.get(Webhook, delivery.webhook_id) for delivery in found
            }
        for delivery in found:
            if (hook := hooks[delivery.webhook_id]) is not None:
                task = asyncio.create_task(self._try(hook, delivery))
                self._busy[hook.id] = task
                task.add_done_callback(partial(self._done, hook.id))
        if time.monotonic() - self._swept > SWEEP_S:
            self._swept = time.monotonic()
            async with self._db.write() as session:
                before = now() - timedelta(days=KEEP_DAYS)
                await repository.sweep(session, keep=KEEP, waiting=WAITING, before=before)

    def _done(self, webhook_id: str, task: asyncio.Task[None]) -> None:
        self._busy.pop(webhook_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a message for webhook %s was not sent: %r", webhook_id, error)

    async def _try(self, hook: Webhook, delivery: WebhookDelivery) -> None:
        async with self._db.write() as session:
            if not await repository.take(session, delivery, again_s=6 * TIMEOUT_S):
                return
        status, error = await self._send(hook, delivery)
        pause = BACKOFF_S[delivery.tries] if delivery.tries < len(BACKOFF_S) else None
        again_s = None if pause is None else pause * random.uniform(0.9, 1.1)
        async with self._db.write() as session:
            await repository.settle(session, delivery.id, status=status, error=error, again_s=again_s)
        if error:
            log.info("webhook %s, message %s, try %d: %s", hook.id, delivery.id, delivery.tries + 1, error)

    async def _send(self, hook: Webhook, delivery: WebhookDelivery) -> tuple[int | None, str | None]:
        """The status of the answer, and what went wrong."""
        body = json.dumps(delivery.payload, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await self._post(hook, delivery.id, body)
        except address.Refused as error:
            return None, str(error)
        except TimeoutError:
            return None, f"no answer within {TIMEOUT_S:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, UnicodeError) as error:
            return None, f"{type(error).__name__}: {error}"[:500]
        return status, None if 200 <= status < 300 else f"the receiver answered {status}"

    async def _post(self, hook: Webhook, message_id: str, body: bytes) -> int:
        url = address.check_url(hook.url)
        host = (await address.checked(url, self._allowed, self._resolve))[0]
        headers = {
            "host": url.netloc.decode("ascii"),
            "content-type": "application/json",
            "user-agent": f"nanochat/{VERSION}",
            **signing.headers(hook.secret, message_id, int(time.time()), body),
        }
        # the address that was checked is the one that is called; TLS still asks for the name
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
            request = client.build_request(
                "POST", url.copy_with(host=host), content=body, headers=headers,
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )  # fmt: skip
            answer = await client.send(request, stream=True)
            size = 0
            async for piece in answer.aiter_raw():  # read, so that the receiver sees us listen; not kept
                size += len(piece)
                if size > ANSWER_BYTES:
                    break
            await answer.aclose()
        return answer.status_code
