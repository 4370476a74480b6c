"""What a page holds in memory: JavaScript alone, without the DOM, layout and canvases."""

from __future__ import annotations

import json
from collections import Counter

from playwright.sync_api import Page

READINGS = 20
MEMORY_OF_ARRAYS = "system / JSArrayBufferData"


def heap_bytes(page: Page, readings: int = READINGS) -> int:
    """Bytes of the heap and of the memory of typed arrays.

    The lowest of some readings, each right after a collection: a page that streams may draw once more in
    between, which leaves up to 1 MB of garbage in every third reading.
    """
    session = page.context.new_cdp_session(page)
    found = []
    for _ in range(readings):
        session.send("HeapProfiler.collectGarbage")
        usage = session.send("Runtime.getHeapUsage")
        found.append(int(usage["usedSize"] + usage["backingStorageSize"]))
    session.detach()
    return min(found)


def reachable_bytes(page: Page) -> tuple[int, int]:
    """Of a heap snapshot: bytes of what the page made (objects, strings, arrays and their memory), and of
    code that V8 compiled."""
    session = page.context.new_cdp_session(page)
    pieces: list[str] = []
    session.on("HeapProfiler.addHeapSnapshotChunk", lambda event: pieces.append(event["chunk"]))
    session.send("HeapProfiler.takeHeapSnapshot", {"reportProgress": False})
    session.detach()
    snapshot = json.loads("".join(pieces))
    meta, nodes, texts = snapshot["snapshot"]["meta"], snapshot["nodes"], snapshot["strings"]
    fields, kinds = meta["node_fields"], meta["node_types"][0]
    kind, name, size = (fields.index(field) for field in ("type", "name", "self_size"))
    sizes: Counter[str] = Counter()
    for at in range(0, len(nodes), len(fields)):
        memory = texts[nodes[at + name]] == MEMORY_OF_ARRAYS
        sizes["memory" if memory else kinds[nodes[at + kind]]] += nodes[at + size]
    compiled = sizes["code"]
    return sizes.total() - compiled - sizes["native"] - sizes["synthetic"] - sizes["hidden"], compiled
