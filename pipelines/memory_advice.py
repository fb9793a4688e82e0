"""Which options would save most where the device's memory did not suffice, by the dry run's own figures."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from pipelines.config.checks import cross_check
from pipelines.config.geometry import geometry
from pipelines.config.schema import RunConfig
from pipelines.dry_run.footprint import footprint
from pipelines.dry_run.memory import world
from pipelines.dry_run.roles import build_on_meta


def memory_advice(cfg: RunConfig, stage: str) -> str:
    """The two best options in words, with the peaks that are planned without and with each."""
    models = build_on_meta(cfg, geometry(cfg))
    now = footprint(cfg, stage, models)
    found = []
    for words, change in _options(cfg, stage):
        other = deepcopy(cfg)
        change(other)
        if cross_check(other, to_run=False):
            continue  # does not go with the rest
        peak = footprint(other, stage, models).peak
        if peak < 0.98 * now.peak:
            found.append((peak, words))
    planned = f"planned peak {_size(now.peak)} in {now.moment}"
    if not found:
        return f"{planned}; no option of this configuration saves any: take smaller models or devices with more memory"
    best = " or ".join(f"{words} ({_size(peak)})" for peak, words in sorted(found)[:2])
    return f"{planned}; what helps most: {best}; --dry-run shows each role's share"


def _options(cfg: RunConfig, stage: str) -> list[tuple[str, Callable[[RunConfig], None]]]:
    """What can be changed without changing what is learnt (but for adapters, which come last among equals)."""
    options: Any = getattr(cfg.stages, stage)
    size, trainer = options.batch_size or cfg.data.batch_size, cfg.trainer
    found: list[tuple[str, Callable[[RunConfig], None]]] = []

    def change(path: str, value: Any) -> None:
        *groups, last = path.split(".")

        def apply(other: Any) -> None:
            for group in groups:
                other = getattr(other, group)
            setattr(other, last, value)

        found.append((f"{path}={value}", apply))

    if trainer.activations != "recompute":
        change("trainer.activations", "recompute")
    if options.accumulate < size:
        change(f"stages.{stage}.accumulate", size)
    if trainer.precision == "32":
        change("trainer.precision", "bf16-mixed")
    if world(cfg).ranks > 1 and trainer.strategy != "fsdp2":
        change("trainer.strategy", "fsdp2")
    if trainer.strategy in ("fsdp2", "deepspeed") and trainer.frozen != "offload":
        change("trainer.frozen", "offload")
    if getattr(options, "roles", "lora") == "full":
        change(f"stages.{stage}.roles", "lora")
    return found


def _size(number: int) -> str:
    return f"{number / 2**30:.3g} GiB"
