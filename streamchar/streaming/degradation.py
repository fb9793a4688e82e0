"""What a stream gives up when it falls behind: denoising steps first, then a part of what it looks back at.

Levels are plans from the best to the cheapest. Down goes one level at a time, as soon as the next chunk is expected
late; up one level, after ``PATIENCE`` chunks in a row for which the better level would have been early enough.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamchar.rollout.plan import SamplePlan
from streamchar.window import WindowConfig

log = logging.getLogger(__name__)

PATIENCE = 4
SPARE = 0.1
"""Part of a chunk's work that must be left over before a better level is tried."""
FIXED_STEPS = 1.5
"""Prefix, context, pointer and decoding of a chunk, in denoising steps: for estimates of levels not measured yet."""


@dataclass(frozen=True)
class Level:
    """A plan, its name for the log, and its work relative to other levels'."""

    plan: SamplePlan
    name: str
    cost: float


def levels_of(plan: SamplePlan, window: WindowConfig, least_steps: int = 2) -> list[Level]:
    """``plan``, then fewer steps down to ``least_steps``, then also a smaller context."""
    counts = range(plan.steps, min(least_steps, plan.steps) - 1, -1)
    levels = [Level(plan.with_steps(n), f"{n} steps", n + FIXED_STEPS) for n in counts]
    last = levels[-1]
    sink, motion = 1, max(window.motion_latents // 3, 1)
    if sink < window.sink_latents or motion < window.motion_latents:
        narrow = replace(last.plan, sink_latents=sink, motion_latents=motion)
        levels.append(Level(narrow, f"{last.name}, sink of {sink} and motion of {motion} latents", 0.8 * last.cost))
    return levels


class Degradation:
    """Chooses the level of every chunk from how long the latest took.

    Args:
        levels: from the best to the cheapest, at least one.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        self.levels = list(levels)
        self.level = 0
        self.changes = 0
        self._calm = 0

    def choose(self, chunk: int, left_s: float | None, took_s: float | None) -> SamplePlan:
        """The plan of chunk ``chunk``.

        left_s: seconds until it is due; took_s: seconds that the latest chunk took at the present level, from its
        beginning until it was ready; None for either where it is not known yet.
        """
        if left_s is None or took_s is None:
            return self.levels[self.level].plan
        if took_s > left_s and self.level + 1 < len(self.levels):
            self._move(self.level + 1, chunk, left_s - took_s)
        elif self.level and self._better(took_s) * (1 + SPARE) <= left_s:
            self._calm += 1
            if self._calm >= PATIENCE:
                self._move(self.level - 1, chunk, left_s - took_s)
        else:
            self._calm = 0
        return self.levels[self.level].plan

    def _better(self, took_s: float) -> float:
        """What the next better level would take."""
        return took_s * self.levels[self.level - 1].cost / self.levels[self.level].cost

    def _move(self, to: int, chunk: int, spare_s: float) -> None:
        state = f"expected {-spare_s:.2f} s late" if spare_s < 0 else f"{spare_s:.2f} s to spare"
        log.warning("chunk %d %s: now %s, before %s", chunk, state, self.levels[to].name, self.levels[self.level].name)
        self.level, self._calm = to, 0
        self.changes += 1
