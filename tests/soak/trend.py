"""Whether a figure grows: the slope of a line through its samples that a few odd ones do not bend.

Theil and Sen's: the median of the slopes of all pairs. A leak moves all of them; a peak moves few.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Of more samples than this, so many are taken at even distances: pairs are many.
MOST_SAMPLES = 400


@dataclass(frozen=True)
class Trend:
    samples: int
    least: float
    median: float
    most: float
    per_hour: float
    growth: float  # by that slope, over the time that was looked at


def trend(samples: Sequence[tuple[float, float]]) -> Trend | None:
    """`samples`: seconds and value, in order of time. None of fewer than three."""
    if len(samples) < 3:
        return None
    step = -(-len(samples) // MOST_SAMPLES)
    taken = samples[::step]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for i, earlier in enumerate(taken)
        for later in taken[i + 1 :]
        if later[0] > earlier[0]
    ]
    slope = statistics.median(slopes) if slopes else 0.0
    values = [value for _, value in samples]
    return Trend(
        samples=len(samples),
        least=min(values),
        median=statistics.median(values),
        most=max(values),
        per_hour=slope * 3600,
        growth=slope * (samples[-1][0] - samples[0][0]),
    )
