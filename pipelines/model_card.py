"""The card of an exported model: what it is, how to use it, of what it was made, what was measured, what it cannot.

What it says of data and training comes from the run's own files, never from the settings of the export's command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.completion import read_mark
from pipelines.config.compose import read_yaml
from pipelines.config.schema import TRAINING
from pipelines.run_directory import RunDirectory
from streamchar.hub.model_spec import ModelSpec
from streamchar.rollout.character import Character

_COLUMNS = {"real": "real clips", "codec": "codec alone", "teacher": "teacher", "teacher_euler": "teacher, few steps",
            "student": "student", "own_head": "orchestrator's own head", "baseline": "no model"}


def model_card(directory: RunDirectory, stage: str, role: str, character: Character, spec: ModelSpec, folder: str,
               dtype: str) -> str:
    """Markdown of ``README.md``."""
    made = read_mark(directory, "encode") is not None and not _setting(directory, "encode", "data", "shards")
    puppets = _setting(directory, "prepare", "prepare") if made else None
    began = _origin(spec, _setting(directory, stage, "init"), _setting(directory, stage, "init_speech"))
    parts = [
        f"# {Path(folder).name}",
        "A StreamChar character: a picture, a voice and a transcript become video and sound, chunk after chunk. "
        f"Exported from stage `{stage}` ({role} weights) of the run `{directory.name}`.",
        f"```\npython pipelines/run.py stage=stream model={folder} transcript=\"...\" reference=face.png "
        "voice=voice.wav\n```\n```python\nfrom streamchar.hub import from_pretrained\n\n"
        f"character = from_pretrained(\"{folder}\")  # the path of this folder\n```",
        "## What it is\n" + _sizes(character, spec, dtype),
        "## Of what it was made\n" + _data(puppets) + began + "\n\n"
        + _training(directory, stage),
        "## What was measured\n" + _measured(directory, stage, "student" if character.few_step else "teacher"),
        "## What it cannot\n" + _limits(puppets)]
    if puppets:
        parts.append("Licence: Apache-2.0.")
    return "\n\n".join(parts) + "\n"


def _setting(directory: RunDirectory, stage: str, *path: str) -> Any:
    """A value of a stage's stored config.yaml; None where there is none."""
    file = directory.stage(stage) / "config.yaml"
    value: Any = read_yaml(file, []) if file.is_file() else None
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _sizes(character: Character, spec: ModelSpec, dtype: str) -> str:
    millions = {name: sum(p.numel() for p in module.parameters()) / 1e6
                for name, module in (("denoiser", character.denoiser), ("orchestrator", character.orchestrator))}
    clock, d = spec.clock, spec.diffusion
    away = "no text" if d.guidance_null == "text" else "the null condition"
    heard = ("no guidance" if d.few_step_guidance == 1.0
             else f"its condition guided away from no text: {d.few_step_guidance:g}")
    sampling = (f"{len(d.few_steps)} steps, {heard}" if character.few_step else
                f"{d.teacher_steps} Euler steps, guidance away from {away}: {d.guidance_video:g} (pictures), "
                f"{d.guidance_audio:g} (sound)")
    return (f"- denoiser {millions['denoiser']:.1f} M parameters, orchestrator {millions['orchestrator']:.1f} M, "
            f"stored as {dtype}; codecs included\n"
            f"- pictures {spec.size} x {spec.size} at {clock.fps:g} frames/s, sound at {clock.sample_rate} Hz, chunks "
            f"of {clock.chunk_frames} frames ({float(clock.chunk_seconds):.2f} s), {sampling}")


def _data(puppets: Any) -> str:
    if not puppets:
        return "Clips given by `data.shards`: the likeness and the voice of the people in them."
    speech = puppets.get("speech_clips")
    alone = f", and {speech} of speech alone by other such voices" if speech else ""
    return (f"{puppets['clips']} clips of {puppets['identities']} drawn puppets with synthetic voices "
            f"(espeak-ng){alone}, made by `stage=prepare`: no real person's likeness or voice. "
            f"Sentences: {puppets['grammar']}.")


def _origin(spec: ModelSpec, init: str | None, speech: str | None) -> str:
    """Whose weights it began from, whose licences then hold too."""
    began = {"denoiser": spec.denoiser.pretrained, "orchestrator": spec.orchestrator.pretrained, "training": init,
             "training of its speech": None if init else speech}
    return "".join(f"\n\nThe {part} began from the weights of `{Path(folder).name}`: that model's licence holds too."
                   for part, folder in began.items() if folder)


def _training(directory: RunDirectory, last: str) -> str:
    rows = ["| stage | steps | batch | hours |", "|---|---|---|---|"]
    for stage in TRAINING[:TRAINING.index(last) + 1]:
        mark, options = read_mark(directory, stage), _setting(directory, stage, "stages", stage)
        if mark is None or options is None:
            continue
        steps = _setting(directory, stage, "trainer", "max_steps") or options["steps"]
        batch = options["batch_size"] or _setting(directory, stage, "data", "batch_size")
        rows.append(f"| {stage} | {steps} | {batch} | {mark.get('seconds', 0) / 3600:.2f} |")
    return "\n".join(rows) + f"\n\nOn {_hardware(directory, last)}. Hours are those of each stage's last start."


def _hardware(directory: RunDirectory, stage: str) -> str:
    try:
        values = json.loads((directory.stage(stage) / "provenance.json").read_text())["hardware"]
        gpus = [str(name) for name in values.get("gpus") or []]
        return ", ".join(gpus) or f"{values['cores']} cores of {values['processor']}"
    except (OSError, ValueError, KeyError):
        return "unknown hardware"


def _measured(directory: RunDirectory, stage: str, column: str) -> str:
    try:
        report = json.loads((directory.stage("evaluate") / "report.json").read_text())
        facts, listed = report["facts"], report["rows"]
    except (OSError, ValueError, KeyError):
        return "Nothing: there is no report of `stage=evaluate`."
    shown = {c: title for c, title in _COLUMNS.items() if any(row["values"].get(c) is not None for row in listed)}
    whose = f"The exported model is the column *{_COLUMNS[column]}*" if column in shown else "This is of another model"
    rows = [f"`stage=evaluate`: {', '.join(f'{k} {v}' for k, v in facts.items())}. {whose}."]
    mark, weights = read_mark(directory, "evaluate"), read_mark(directory, stage)
    if mark is None or weights is None or mark.get("inputs", {}).get(stage) != weights.get("finished"):
        rows.append("Measured before these weights were made, or not on this stage: other weights' figures.")
    rows += ["", "| measure | better | " + " | ".join(shown.values()) + " |", "|---" * (len(shown) + 2) + "|"]
    for row in listed:
        cells = [_cell(row["values"].get(c), row["unit"]) for c in shown]
        if any(cells):
            rows.append(f"| {row['group']}: {row['name']} | {row['better']} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.1f} %" if unit == "%" else f"{value:.3g}" + (f" {unit}" if unit else "")


def _limits(puppets: Any) -> str:
    if not puppets:
        return "It speaks as the people of its training clips do; other faces, voices and words were not tried."
    words = "the 51 words of the GRID grammar" if puppets["grammar"] == "grid" else "the words of its grammar"
    return (f"It knows {words}; others can be spelled but were never heard. It draws puppets: a photograph as "
            "reference is not what it was trained on.")
