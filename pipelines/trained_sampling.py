"""How a student steps and what it hears belong to its weights: a run's newer settings must not change them."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

from pipelines.config.compose import read_yaml
from pipelines.run_directory import RunDirectory
from streamchar.diffusion.config import DiffusionConfig
from streamchar.hub.pretrained import Exported

log = logging.getLogger(__name__)

_LEARNT = ("few_step_sampler", "few_step_guidance")


def trained_sampling(now: DiffusionConfig, directory: RunDirectory, stage: str, export: Exported | None
                     ) -> DiffusionConfig:
    """``now`` with the sampler and the condition's guidance that the student of ``stage`` (or ``export``) was trained
    with; a difference is told. A setting that did not exist then had its default's effect.
    """
    path = directory.stage(stage) / "config.yaml"
    if export is None and not path.is_file():
        return now
    saved: dict[str, Any] = (asdict(export.spec.diffusion) if export is not None
                             else (read_yaml(path, []) or {}).get("diffusion", {}))
    plain = DiffusionConfig()
    then = {key: saved.get(key, getattr(plain, key)) for key in _LEARNT}
    changed = [f"diffusion.{key}={value} in place of {getattr(now, key)}" for key, value in then.items()
               if value != getattr(now, key)]
    if changed:
        log.warning("%s: the student was trained with other settings, which are taken: %s",
                    path.parent if export is None else export.folder, ", ".join(changed))
    return replace(now, **then)
