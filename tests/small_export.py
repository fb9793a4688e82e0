"""``stage=export`` of what ``tests/small_stage.py`` has trained: the command itself, on the run's own checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from callbacks import checkpoint_files as files
from pipelines.run import main
from streamchar.codecs.config import AudioCodecConfig, CodecConfig, VideoCodecConfig
from streamchar.codecs.store import Codecs, fit_codecs, save_codec
from streamchar.hub import from_pretrained
from streamchar.rollout.character import Character
from tests import tiny_models as tiny


def export(root: Path, stage: str, *settings: str) -> Character:
    """Export a training stage of ``root/run``, with ``settings`` of the command line, and load the result.

    A character also needs what other stages made: codecs, and beside students (or an orchestrator alone) a teacher's
    stage, which is stood in for by tiny models. An orchestrator is exported with that teacher.
    """
    run, out = root / "run", root / "model"
    codecs = small_codecs()
    for name, codec in (("video", codecs.video), ("audio", codecs.audio)):
        save_codec(codec, run / "encode" / "codecs" / name)
    if stage != "teacher":
        stand_in(root)
    source = "teacher" if stage == "orchestrator" else stage
    # At rate 0 a teacher's stage has left the orchestrator as the stage before it made it.
    rate = 0 if stage == "orchestrator" else 1
    code = main(["stage=export", f"root={root}", "name=run", f"from={source}", f"out={out}",
                 "callbacks.tracking.kind=off", f"teacher.orchestrator_lr_scale={rate}", *sizes(), *settings])
    assert code == 0, f"stage=export from={source} ended with exit code {code}"
    return from_pretrained(out)


def sizes() -> list[str]:
    """The settings of ``tiny.character()`` as a command line gives them."""
    who = tiny.character()
    wanted = {"denoiser": who.denoiser.config, "orchestrator": who.orchestrator.config, "window": who.window,
              "diffusion": who.diffusion}
    found = [f"clock.fps={who.clock.fps:g}", f"clock.chunk_frames={who.clock.chunk_frames}", f"data.size={who.size}"]
    for group, values in wanted.items():
        found += [f"{group}.{name}={'null' if value is None else value}" for name, value in asdict(values).items()
                  if name not in ("video_channels", "audio_channels")]  # which the codecs tell
    return found


def small_codecs() -> Codecs:
    """Codecs of the tiny models' channels, fitted on random clips."""
    g = torch.Generator().manual_seed(0)
    clips = [((torch.rand(9, 3, 16, 16, generator=g) * 255).byte(), 0.1 * torch.randn(8000, generator=g))
             for _ in range(4)]
    return fit_codecs(CodecConfig(VideoCodecConfig(channels=tiny.CHANNELS),
                                  AudioCodecConfig(channels=tiny.AUDIO, iterations=2)), clips)


def stand_in(root: Path) -> None:
    """A checkpoint of a teacher's stage that has not learnt anything, where ``root/run`` has none yet."""
    checkpoints = root / "run" / "teacher" / "checkpoints"
    if checkpoints.exists():
        return
    who = tiny.character()
    roles = {"teacher": who.denoiser, "orchestrator": who.orchestrator}
    weights = {f"{role}.{name}": value for role, model in roles.items() for name, value in model.state_dict().items()}
    part = files.begin(checkpoints, 0)
    state: dict[str, Any] = {"module": {"weights": weights}, "global_step": 0}
    files.finish(part, {"files": {files.STATE: files.write_file(part / files.STATE, state)}})
