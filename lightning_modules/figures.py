"""Figures of training steps: they stay on the device until a row of them is logged, so that no step waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamchar.objectives.per_sample import batch_mean
from streamchar.transfer import sent


@dataclass
class Sometimes:
    """A figure that a step has only where ``there``, which the device alone may know; both are scalars."""

    value: Tensor
    there: Tensor

    def over(self, older: Any) -> Any:
        """This one where it is there, else the older one (None: there was none)."""
        if older is None:
            return self
        if isinstance(older, Sometimes):
            return Sometimes(torch.where(self.there, self.value, older.value), self.there | older.there)
        return torch.where(self.there, self.value, older)


def merged(figures: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """The newest value of every figure."""
    found = dict(figures)
    for name, value in newer.items():
        if isinstance(value, Sometimes):
            found[name] = value.over(found.get(name))
        else:
            found[name] = value.detach() if isinstance(value, Tensor) else float(value)
    return found


def read(figures: Mapping[str, Any]) -> dict[str, float]:
    """All figures as numbers, in one transfer; without those that no step had."""
    there = {name: f.there for name, f in figures.items() if isinstance(f, Sometimes)}
    values = {name: f.value if isinstance(f, Sometimes) else f for name, f in figures.items()}
    far = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    asked = [x.detach().double() for x in (*far.values(), *there.values())]
    numbers = torch.stack(asked).tolist() if asked else []
    known = values | dict(zip(far, numbers, strict=False))
    absent = {name for name, is_there in zip(there, numbers[len(far):], strict=True) if not is_there}
    return {name: float(value) for name, value in known.items() if name not in absent}


def sometimes(loss: Tensor, where: Tensor) -> Sometimes:
    """Mean of a per-sample loss (B,) over the samples where ``where`` (B,) is True, in steps that have any."""
    return Sometimes(batch_mean(loss.detach(), where), where.any())


def by_group(name: str, loss: Tensor, groups: Sequence[str], where: Tensor | None = None
             ) -> dict[str, Tensor | Sometimes]:
    """Mean of a per-sample loss (B,) in each set of a mixture: ``name_in_SET``; nothing without a mixture. ``where``
    (B,): the samples that have this loss, which need not be in every set."""
    found: dict[str, Tensor | Sometimes] = {}
    for group in sorted(set(groups)):
        inside = sent(torch.tensor([g == group for g in groups]), loss.device)
        found[f"{name}_in_{group}"] = (batch_mean(loss.detach(), inside) if where is None else
                                       sometimes(loss, inside & where))
    return found


def levels(name: str, loss: Tensor, sigma: Tensor, where: Tensor | None = None, bins: int = 4) -> dict[str, Sometimes]:
    """Mean of a per-sample loss (B,) in equal bins of the noise level: ``name_t0`` (clean) to ``name_t3`` (noise).
    ``where`` (B,): the samples that have this loss; None: all."""
    place = (sigma * bins).long().clamp(0, bins - 1)
    inside = [place == i if where is None else (place == i) & where for i in range(bins)]
    return {f"{name}_t{i}": sometimes(loss, those) for i, those in enumerate(inside)}
