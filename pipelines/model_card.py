"""The card of an exported model: what it is, how to use it, of what it was made, what was measured, what it cannot."""

from __future__ import annotations

import json
from typing import Any

from pipelines.completion import read_mark
from pipelines.config.schema import TRAINING, RunConfig
from pipelines.run_directory import RunDirectory
from streamchar.hub.model_spec import ModelSpec
from streamchar.rollout.character import Character

_SHOWN = ("real", "codec", "teacher", "teacher_few", "student", "baseline")
_HEAD = ("real clips", "codec alone", "teacher", "teacher, few steps", "student", "no model")


def model_card(cfg: RunConfig, directory: RunDirectory, stage: str, role: str, character: Character, spec: ModelSpec,
               folder: str) -> str:
    """Markdown of ``README.md``, from the run's own files."""
    sizes = {name: sum(p.numel() for p in module.parameters()) / 1e6
             for name, module in (("denoiser", character.denoiser), ("orchestrator", character.orchestrator))}
    clock, diffusion = spec.clock, spec.diffusion
    sampling = (f"{len(diffusion.few_steps)} steps, no guidance" if character.few_step else
                f"{diffusion.teacher_steps} Euler steps, guidance {diffusion.guidance_video:g} (pictures) and "
                f"{diffusion.guidance_audio:g} (sound)")
    parts = [
        f"# {folder}",
        f"A StreamChar character: a picture, a voice and a transcript become video and sound, chunk after chunk. "
        f"Exported from stage `{stage}` ({role} weights) of the run `{cfg.name}`, preset `{cfg.preset}`.",
        f"```\npython pipelines/run.py stage=stream model={folder} transcript=\"...\" reference=face.png "
        "voice=voice.wav\n```\n```python\nfrom streamchar.hub import from_pretrained\n\n"
        f"character = from_pretrained(\"{folder}\")\n```",
        "## What it is\n"
        f"- denoiser {sizes['denoiser']:.1f} M parameters, orchestrator {sizes['orchestrator']:.1f} M, stored as "
        f"{cfg.export.dtype}; codecs included\n"
        f"- pictures {spec.size} x {spec.size} at {clock.fps:g} frames/s, sound at {clock.sample_rate} Hz, chunks of "
        f"{clock.chunk_frames} frames ({float(clock.chunk_seconds):.2f} s), {sampling}",
        "## What it was made from\n" + _data(cfg, directory) + "\n\n" + _training(cfg, directory),
        "## What was measured\n" + _measured(directory),
        "## What it cannot\n" + _limits(cfg, directory),
        "Licence: Apache-2.0.\n"]
    return "\n\n".join(parts)


def _from_puppets(cfg: RunConfig, directory: RunDirectory) -> bool:
    return cfg.data.shards is None and directory.has("prepare", "complete.json")


def _data(cfg: RunConfig, directory: RunDirectory) -> str:
    if not _from_puppets(cfg, directory):
        return "Clips given by `data.shards`: the likeness and the voice of the people in them."
    p = cfg.prepare
    return (f"{p.clips} clips of {p.identities} drawn puppets with synthetic voices (espeak-ng), made by "
            f"`stage=prepare`: no real person's likeness or voice. Grammar of the sentences: {p.grammar}.")


def _training(cfg: RunConfig, directory: RunDirectory) -> str:
    rows = ["| stage | steps | batch | hours |", "|---|---|---|---|"]
    for stage in TRAINING:
        mark, options = read_mark(directory, stage), getattr(cfg.stages, stage)
        if mark is not None:
            batch = options.batch_size or cfg.data.batch_size
            rows.append(f"| {stage} | {options.steps} | {batch} | {mark['seconds'] / 3600:.2f} |")
    return "\n".join(rows) + f"\n\nOn: {_hardware(directory)}. Hours are of each stage's last start."


def _hardware(directory: RunDirectory) -> str:
    for stage in reversed(TRAINING):
        try:
            values: dict[str, Any] = json.loads((directory.stage(stage) / "provenance.json").read_text())["hardware"]
        except (OSError, ValueError, KeyError):
            continue
        return ", ".join(values["gpus"]) or f"{values['cores']} cores of {values['processor']}"
    return "not recorded"


def _measured(directory: RunDirectory) -> str:
    try:
        report = json.loads((directory.stage("evaluate") / "report.json").read_text())
    except (OSError, ValueError):
        return "Nothing yet: `stage=evaluate` was not run before this export."
    facts = ", ".join(f"{k} {v}" for k, v in report["facts"].items())
    rows = [f"`stage=evaluate`: {facts}.", "", "| measure | " + " | ".join(_HEAD) + " |",
            "|---" * (len(_HEAD) + 1) + "|"]
    for row in report["rows"]:
        cells = [_cell(row["values"].get(name), row["unit"]) for name in _SHOWN]
        if any(cells):
            rows.append(f"| {row['group']}: {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.1f} %" if unit == "%" else f"{value:.3g}" + (f" {unit}" if unit else "")


def _limits(cfg: RunConfig, directory: RunDirectory) -> str:
    if not _from_puppets(cfg, directory):
        return "It speaks as the people of its training clips do; other faces, voices and words were not tried."
    words = "the 51 words of the GRID grammar" if cfg.prepare.grammar == "grid" else "the words of its grammar"
    return (f"It knows {words}; others can be spelled but were never heard. It draws puppets: a photograph as "
            "reference is not what it was trained on.")
