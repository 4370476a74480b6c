"""What Prometheus learns about inference: vLLM's names with our prefix, so that its dashboards fit.

Counts are plain integers and histograms plain lists, written from the event loop alone: observing costs
a third of a microsecond, and happens for every token. Times between tokens are measured where the
engine's frames arrive, so a slow reader does not count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_TOKEN_S = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
_FIRST_S = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: name → (bounds, what it is)
HISTOGRAMS: dict[str, tuple[Sequence[float], str]] = {
    "time_to_first_token_seconds": (_FIRST_S, "From a request's arrival to its first token."),
    "inter_token_latency_seconds": (_TOKEN_S, "Between two tokens of one choice."),
    "e2e_request_latency_seconds": (_REQUEST_S, "From a request's arrival to its last token."),
    "request_queue_time_seconds": (_FIRST_S, "In the engine's queue."),
    "request_prefill_time_seconds": (_FIRST_S, "From the first prefill step to the first token."),
    "request_decode_time_seconds": (_REQUEST_S, "From the first token to the last."),
    "request_prompt_tokens": (_TOKENS, "Tokens of a prompt."),
    "request_generation_tokens": (_TOKENS, "Tokens generated for one choice."),
    "iteration_batch_size": (_BATCH, "Sequences in one step of the engine (mean of a second)."),
}
GAUGES = {
    "num_requests_running": "Sequences that are being generated.",
    "num_requests_waiting": "Sequences that wait for a slot.",
    "kv_cache_usage_perc": "Share of the key-value cache in use, 0 to 1.",
}
COUNTERS = {
    "prompt_tokens": "Tokens of prompts.",
    "generation_tokens": "Tokens generated.",
    "prefix_cache_queries": "Prompt tokens looked up in the prefix cache.",
    "prefix_cache_hits": "Prompt tokens found in the prefix cache.",
    "engine_steps": "Steps of the engine.",
    "engine_starts": "Engine processes started.",
    "engine_deaths": "Engine processes that ended without being asked to.",
}


class Distribution:
    """A histogram: counts by upper bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return [(name, float(count)) for name, count in zip(names, accumulate(self.counts), strict=True)]


class ModelNumbers:
    """Everything counted about one model, over all engines it has had."""

    def __init__(self) -> None:
        self.gauges = dict.fromkeys(GAUGES, 0.0)
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.finished: Counter[str] = Counter()
        self.histograms = {name: Distribution(bounds) for name, (bounds, _) in HISTOGRAMS.items()}
        self.inter_token = self.histograms["inter_token_latency_seconds"]

    def observe(self, name: str, value: float | None) -> None:
        """A value of a histogram; None: the engine did not say."""
        if value is not None:
            self.histograms[name].observe(value)

    def engine_says(self, stats: dict[str, Any], before: dict[str, Any]) -> None:
        """A `stats` frame and the one before it of the same process, whose counts start at zero."""
        blocks = stats.get("kv_blocks") or 0
        self.gauges["num_requests_running"] = stats.get("running", 0)
        self.gauges["num_requests_waiting"] = stats.get("waiting", 0)
        self.gauges["kv_cache_usage_perc"] = stats.get("kv_used", 0) / blocks if blocks else 0.0

        def grown(name: str) -> int:
            return int(stats.get(name, 0) - before.get(name, 0))

        self.counters["prefix_cache_queries"] += grown("prefix_queries")
        self.counters["prefix_cache_hits"] += grown("prefix_hits")
        if steps := grown("steps"):
            self.counters["engine_steps"] += steps
            self.histograms["iteration_batch_size"].observe(grown("batch_sum") / steps, steps)

    def engine_gone(self) -> None:
        self.gauges = dict.fromkeys(GAUGES, 0.0)


class InferenceNumbers(Collector):
    """The numbers of every model that was loaded since the server started, by its name."""

    def __init__(self) -> None:
        self._models: dict[str, ModelNumbers] = {}

    def of(self, model: str) -> ModelNumbers:
        return self._models.setdefault(model, ModelNumbers())

    def collect(self) -> Iterable[Metric]:
        yield from self._gauges()
        yield from self._counters()
        for name, (_, said) in HISTOGRAMS.items():
            family = HistogramMetricFamily(f"nanochat_{name}", said, labels=["model_name"])
            for model, numbers in self._models.items():
                histogram = numbers.histograms[name]
                family.add_metric([model], histogram.buckets(), histogram.total)
            yield family

    def _gauges(self) -> Iterator[Metric]:
        for name, said in GAUGES.items():
            family = GaugeMetricFamily(f"nanochat_{name}", said, labels=["model_name"])
            for model, numbers in self._models.items():
                family.add_metric([model], numbers.gauges[name])
            yield family

    def _counters(self) -> Iterator[Metric]:
        for name, said in COUNTERS.items():
            family = CounterMetricFamily(f"nanochat_{name}", said, labels=["model_name"])
            for model, numbers in self._models.items():
                family.add_metric([model], numbers.counters[name])
            yield family
        said = "Choices that ended, by why: stop, length, abort (the client left), error."
        done = CounterMetricFamily("nanochat_request_success", said, labels=["model_name", "finished_reason"])
        for model, numbers in self._models.items():
            for reason, count in numbers.finished.items():
                done.add_metric([model, reason], count)
        yield done
