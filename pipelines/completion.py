"""Which stages are complete: ``complete.json`` holds a hash of all settings that the stage's result depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pipelines.config.fields import lookup
from pipelines.config.schema import STAGES, RunConfig
from pipelines.run_directory import RunDirectory, global_rank, write_atomically

_MODEL = ("seed", "clock", "window", "codec", "data", "diffusion", "orchestrator", "trainer.max_steps",
          "trainer.precision")
_DEPENDS: dict[str, tuple[str, ...]] = {
    "prepare": ("prepare", "intake", "seed"),
    "encode": ("codec", "clock", "data.latents", "data.mix", "data.shards", "data.val_shards", "data.speech_shards",
               "data.respoken.times", "data.respoken.switch_p", "data.respoken.speeds", "data.respoken.sentences",
               "data.respoken.pause_s",
               "data.size", "data.phases", "data.latent_dtype", "data.codec_clips", "data.max_clips"),
    "orchestrator": (*_MODEL, "stages.orchestrator"),
    "teacher": (*_MODEL, "denoiser", "stages.teacher"),
    "dmd": (*_MODEL, "denoiser", "student", "stages.dmd"),
    "rollout": (*_MODEL, "denoiser", "student", "stages.rollout"),
    "evaluate": ("evaluate",),
    "stream": ("stream",),
    "export": ("export",),
    "inspect": ("inspect", "data", "window", "seed"),
}
"""Settings that each stage reads itself; what earlier stages read enters through their own marks."""


def reads(stage: str) -> tuple[str, ...]:
    """Groups and keys of the configuration on which the stage's own result depends."""
    return _DEPENDS[stage]


def read_of_diffusion(values: dict[str, Any], stage: str) -> dict[str, Any]:
    """The diffusion settings without what ``stage`` does not read: ``few_step_guidance`` is a student's alone. At 1 it
    changes nothing and stays out for students too, so that runs made before there was such a setting stay valid.
    """
    read = stage in ("dmd", "rollout") and values["few_step_guidance"] != 1.0
    return {k: v for k, v in values.items() if read or k != "few_step_guidance"}


def read_of_stage(values: dict[str, Any]) -> dict[str, Any]:
    """A stage's own settings without what changes nothing that it makes, and without one draw, as it always was."""
    return {k: v for k, v in values.items() if k not in ("val_every", "compile") and (k, v) != ("draws", 1)}


def read_of_data(values: dict[str, Any], stage: str) -> dict[str, Any]:
    """Settings by path without what changes nothing of ``stage``, so that runs made before there were such settings
    stay valid: ``data.respoken`` where no words are said again, else its ``joint_share`` where that is 0 or the stage
    is not the teacher; ``data.anywhere_p`` where it is 0 or no item is sound alone."""
    data = values.get("data", {})
    anywhere = values.get("data.anywhere_p", data.get("anywhere_p", 0))
    if not anywhere or stage not in ("orchestrator", "teacher", "inspect"):
        data = {k: v for k, v in data.items() if k != "anywhere_p"}
        values = {k: v for k, v in values.items() if k != "data.anywhere_p"} | ({"data": data} if data else {})
    respoken = data.get("respoken", {})
    if not values.get("data.respoken.times", respoken.get("times", 0)):
        unread = "data.respoken"
        data = {k: v for k, v in data.items() if k != "respoken"}
    elif stage != "teacher" or not values.get("data.respoken.joint_share", respoken.get("joint_share", 0)):
        unread = "data.respoken.joint_share"
        if respoken:
            data = data | {"respoken": {k: v for k, v in respoken.items() if k != "joint_share"}}
    else:
        return values
    kept = {path: value for path, value in values.items() if not path.startswith(unread)}
    return kept | ({"data": data} if data else {})


def digest(run: RunDirectory, stage: str, cfg: RunConfig) -> str:
    """Hash of the settings that ``stage`` reads, and of what it takes from an exported character."""
    values = {}
    for path in _DEPENDS[stage]:
        if lookup(RunConfig, path) is not None:
            at: Any = asdict(cfg)
            for part in path.split("."):
                at = at[part]
            if path == f"stages.{stage}":
                at = read_of_stage(at)
            values[path] = read_of_diffusion(at, stage) if path == "diffusion" else at
    values = read_of_data(values, stage)
    if cfg.origin:
        from pipelines.origins import identity  # loads torch

        values["init"] = identity(cfg, run, stage)
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_mark(run: RunDirectory, stage: str) -> dict[str, Any] | None:
    """The mark of a complete stage; None where it is missing or unreadable."""
    try:
        mark = json.loads((run.stage(stage) / "complete.json").read_text())
    except (OSError, ValueError):
        return None
    return mark if isinstance(mark, dict) else None


def is_complete(run: RunDirectory, stage: str, cfg: RunConfig) -> dict[str, Any] | None:
    """The stage's mark where its settings, and the results it was made from, are still the same; else None."""
    mark = read_mark(run, stage)
    if mark is None or mark.get("digest") != digest(run, stage, cfg) or mark.get("inputs") != _inputs(run, stage, cfg):
        return None
    return mark


def clear_mark(run: RunDirectory, stage: str) -> None:
    """Forget that the stage was complete: it is about to run again."""
    if global_rank() == 0:
        (run.stage(stage) / "complete.json").unlink(missing_ok=True)


def set_mark(run: RunDirectory, stage: str, cfg: RunConfig, seconds: float) -> None:
    """Say that the stage is complete with these settings and inputs."""
    if global_rank() == 0:
        mark = {"stage": stage, "digest": digest(run, stage, cfg), "inputs": _inputs(run, stage, cfg),
                "finished": datetime.now(UTC).isoformat(), "seconds": round(seconds, 3)}
        write_atomically(run.stage(stage) / "complete.json", json.dumps(mark, indent=2) + "\n")


def _inputs(run: RunDirectory, stage: str, cfg: RunConfig) -> dict[str, str]:
    """When each earlier stage of the chain finished: a stage made anew makes its followers stale."""
    earlier = [s for s in STAGES[: STAGES.index(stage)] if s in cfg.chain and s != "evaluate"]
    return {s: mark["finished"] for s in earlier if (mark := read_mark(run, s)) is not None}
