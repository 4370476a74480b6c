"""The service itself: stages, presets, plans, workers, keys, webhooks, alerts."""

from __future__ import annotations

from collections.abc import Sequence

from nanochat_client import types
from nanochat_client.operations.core import JsonObject, Operation, delete, get, parser, post, segment


def stages() -> Operation[types.Page[types.StageView]]:
    """What can be run, with the JSON schema of each stage's config."""
    return get("/stages", types.Page[types.StageView])


def get_stage(name: str) -> Operation[types.StageView]:
    """One stage, by its name: base, sft …"""
    return get(f"/stages/{segment(name)}", types.StageView)


def configs() -> Operation[types.Page[types.ConfigView]]:
    """The presets that ship."""
    return get("/configs", types.Page[types.ConfigView])


def get_config(name: str) -> Operation[types.ConfigView]:
    """One preset: its values, what they resolve to, and what is wrong with them."""
    return get(f"/configs/{segment(name)}", types.ConfigView)


def plan(
    stage: str,
    *,
    config: str | None = None,
    parent: str | None = None,
    checkpoint: str = "last",
    overrides: JsonObject | None = None,
    gpus: int | None = None,
    gpu: str | None = None,
    target_vram_gb: float | None = None,
) -> Operation[types.Plan]:
    """What such a run would need, and what is wrong with it; nothing is started."""
    body = types.PlanCreate(
        stage=stage,
        config=config,
        parent=parent,
        checkpoint=checkpoint,
        overrides=overrides or {},
        gpus=gpus,
        gpu=gpu,
        target_vram_gb=target_vram_gb,
    )
    fields = body.model_dump(mode="json")
    return Operation("POST", "/plans", parser(types.Plan), body=fields, repeatable=True)


def workers() -> Operation[types.Page[types.Worker]]:
    """Every host that has registered, its GPUs and what runs on them."""
    return get("/workers", types.Page[types.Worker])


def system() -> Operation[types.System]:
    """Version, workers, queue and database of the service."""
    return get("/system", types.System)


def list_keys() -> Operation[types.Page[types.Key]]:
    """Every key with its scopes and its last use. Needs an admin's key, as the next two."""
    return get("/keys", types.Page[types.Key])


def create_key(
    name: str, *, scopes: Sequence[str] = (), expires_in_s: int | None = None
) -> Operation[types.KeyCreated]:
    """A fresh key; its `key` is shown this once. Without `scopes`: read, submit, operate and infer."""
    body: JsonObject = {"name": name, "expires_in_s": expires_in_s}
    return post("/keys", types.KeyCreated, {**body, "scopes": list(scopes)} if scopes else body)


def revoke_key(key_id: str) -> Operation[None]:
    """End a key and the sessions that were made with it."""
    return delete(f"/keys/{segment(key_id)}")


def create_webhook(
    url: str, *, events: Sequence[str] = ("run.*", "alert.*"), name: str = ""
) -> Operation[types.WebhookCreated]:
    """Tell `url` what happens to runs. The answer's `secret` signs the messages and is shown this once."""
    body: JsonObject = {"url": url, "events": list(events), "name": name}
    return post("/webhooks", types.WebhookCreated, body, creates=True)


def list_webhooks() -> Operation[types.Page[types.Webhook]]:
    """Every webhook, and how its last delivery went."""
    return get("/webhooks", types.Page[types.Webhook])


def delete_webhook(webhook_id: str) -> Operation[None]:
    """It is told nothing more; what was not delivered yet is dropped."""
    return delete(f"/webhooks/{segment(webhook_id)}")


def deliveries(webhook_id: str, *, limit: int = 50) -> Operation[types.Page[types.Delivery]]:
    """The last messages to a webhook, newest first."""
    return get(f"/webhooks/{segment(webhook_id)}/deliveries", types.Page[types.Delivery], limit=limit)


def ping_webhook(webhook_id: str) -> Operation[types.Delivery]:
    """Send a message that says nothing, to see whether it arrives."""
    return post(f"/webhooks/{segment(webhook_id)}/ping", types.Delivery)


def alerts(
    *, run: str | None = None, open: bool | None = None, cursor: str | None = None, limit: int = 50
) -> Operation[types.Page[types.Alert]]:
    """Alerts, newest first. `open`: only those that are not over (True), or that are (False)."""
    is_open = None if open is None else str(open).lower()
    return get("/alerts", types.Page[types.Alert], run=run, open=is_open, cursor=cursor, limit=limit)
