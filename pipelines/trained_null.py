"""Guidance leads away from a null branch: whether stored weights ever saw it, by the settings they came from."""

from __future__ import annotations

from pipelines.config.checks import unseen_null
from pipelines.config.compose import read_yaml
from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory
from streamchar.errors import InputError
from streamchar.objectives.drops import DropConfig


def check_null(cfg: RunConfig, directory: RunDirectory, stages: tuple[str, ...]) -> None:
    """Refuse guidance away from a null that the trained ``stages`` never saw.

    Raises:
        InputError: naming the stage, its setting, and what else could be done.
    """
    for stage in stages:
        path = directory.stage(stage) / "config.yaml"
        saved = (read_yaml(path, []) or {}) if path.is_file() else {}
        drops = saved.get("stages", {}).get(stage, {}).get("drops")
        if drops is None:
            continue
        known = {k: v for k, v in drops.items() if k in DropConfig.__dataclass_fields__}
        problem = unseen_null(cfg.diffusion, stage, DropConfig(**known))
        if problem:
            raise InputError(
                f"{problem} in {path}, with which the run was trained; choose the other guidance_null, or no guidance "
                "(diffusion.guidance_video=1 diffusion.guidance_audio=1 diffusion.few_step_guidance=1)")
