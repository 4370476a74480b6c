"""Which worker a run goes to, or why to none. Pure: decides over what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from pydantic import JsonValue

from nanochat.configurator import ConfigError, PresetError, load_preset, preset_files, validate
from nanochat.stages import STAGES
from nanochat_client.types import Blocked
from server.models import Run
from server.workers.repository import Offer


def place(run: Run, offers: Sequence[Offer]) -> Offer | Blocked:
    """The worker with most room for `run`, else why there is none."""
    asked: dict[str, JsonValue] = {"stage": run.stage, "gpus": run.gpus}
    if not offers:
        return Blocked(
            code="no_worker",
            message="no worker is registered and alive: start one with `nanochat worker`",
            asked=asked,
        )
    capable = [offer for offer in offers if offer.gpus >= run.gpus]
    offered = [_describe(offer) for offer in offers]
    if not capable:
        most = max(offer.gpus for offer in offers)
        preset = preset_for(run.stage, most)
        hint = f"; the preset {preset} would run here" if preset else ""
        return Blocked(
            code="no_capable_worker",
            message=f"the run asks for {_gpus(run.gpus)} on one host, the best worker offers {most}{hint}",
            asked=asked,
            offered=offered,
            preset=preset,
        )
    free = [offer for offer in capable if offer.free_slots > 0 and len(offer.free_gpus) >= run.gpus]
    if not free:
        return Blocked(
            code="no_free_slot",
            message="every worker that could take the run is busy: it starts when one has a free place",
            asked=asked,
            offered=offered,
        )
    # a run that needs few GPUs leaves the big hosts to those that need many
    return min(free, key=lambda offer: (len(offer.free_gpus) - run.gpus, -offer.free_slots))


def take(offer: Offer, run: Run) -> None:
    """Count `run` against `offer`, so that the next one in line sees what is left."""
    offer.free_slots -= 1
    del offer.free_gpus[: per_node(run)]


def per_node(run: Run) -> int:
    """GPUs that the run takes of each of its workers."""
    return run.gpus // (run.nodes or 1)


def place_nodes(run: Run, offers: Sequence[Offer]) -> list[Offer] | Blocked:
    """The workers of a run over several nodes, the one that is node 0 first; all of them or none.

    One node for each address. torchrun numbers nodes by their addresses, so the lowest is node 0. A run
    that was started before may go on with fewer, down to `min_nodes`, when others are gone.
    """
    share, asked = per_node(run), {"stage": run.stage, "gpus": run.gpus, "nodes": run.nodes}
    by_address: dict[str, Offer] = {}
    for offer in sorted(offers, key=lambda offer: (-len(offer.free_gpus), -offer.free_slots)):
        if offer.worker.address and offer.gpus >= share:
            by_address.setdefault(offer.worker.address, offer)
    offered = [_describe(offer) for offer in offers]
    count = min(run.nodes, len(by_address))
    if count < (run.nodes if run.attempt == 0 else run.min_nodes) or not _divides(run, count):
        message = (
            f"the run asks for {run.nodes} workers with {_gpus(share)} each, there are {len(by_address)} "
            "that others can reach"
        )
        return Blocked(code="no_capable_worker", message=message, asked=asked, offered=offered)
    free = [o for o in by_address.values() if o.free_slots > 0 and len(o.free_gpus) >= share]
    if len(free) < count:
        message = f"{len(free)} of the {count} workers it needs at the same time are free"
        return Blocked(code="no_free_slot", message=message, asked=asked, offered=offered)
    chosen = sorted(free, key=lambda offer: len(offer.free_gpus) - share)[:count]
    return sorted(chosen, key=lambda offer: offer.worker.address)


def _divides(run: Run, count: int) -> bool:
    """Whether the run's config also fits so many nodes."""
    if count == run.nodes:
        return True
    config = STAGES[run.stage].config(**run.config)
    ranks = (run.gpus or config.processes) // run.nodes * count
    return not config.problems(ranks)


@cache
def preset_for(stage_name: str, gpus: int) -> str | None:
    """A shipped preset of the stage that needs at most `gpus` GPUs; of several, the biggest."""
    stage, found = STAGES[stage_name], []
    for name, path in preset_files().items():
        try:
            preset = load_preset(path)
            if preset.gpus is None or preset.gpus > gpus:
                continue
            validate(stage, preset.values, preset.gpus or None)
        except (ConfigError, PresetError, OSError):
            continue
        found.append((-preset.gpus, name))
    return min(found)[1] if found else None


def _gpus(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


def _describe(offer: Offer) -> dict[str, JsonValue]:
    return {
        "worker": offer.worker.id,
        "host": offer.worker.host,
        "gpus": offer.gpus,
        "free_gpus": len(offer.free_gpus),
        "slots": offer.worker.slots,
        "free_slots": max(0, offer.free_slots),
    }
