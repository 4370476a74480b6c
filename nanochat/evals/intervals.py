"""How sure a share of right answers is."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


def wilson(right: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of `right` out of `total`; holds for small counts and near 0 and 1."""
    if total == 0:
        return 0.0, 1.0
    share = right / total
    scale = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low = 0.0 if right == 0 else max(0.0, middle - half)
    high = 1.0 if right == total else min(1.0, middle + half)
    return low, high
