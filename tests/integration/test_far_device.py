"""The four stages on a pretended device: nothing of two devices meets, and a step waits where it says, nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from lightning_modules.fixed_streams import FixedStreams
from lightning_modules.stage_module import StageModule
from pipelines.strategies.stored_whole import Single
from streamchar.rollout.plan import student_plan
from tests import small_stage
from tests import tiny_models as tiny
from tests.far_device import FarDevice, far_device
from tests.integration.test_stream_stage import PlainSound, PlainVideo

UPDATE = "lightning_modules/stage_module.py"
CHUNK = "streamchar/rollout/memory.py"


@pytest.fixture()
def far() -> Iterator[FarDevice]:
    with (far_device() as mode, patch("pipelines.trainer.strategy_of", lambda *_: Single("meta")),
          patch("lightning.pytorch.accelerators.cpu.CPUAccelerator.setup_device", lambda *_: None)):
        yield mode


def waits_of_steps(module: type[StageModule], far: FarDevice) -> tuple[list[list[str]], Any]:
    """A list that is filled with what each training step waited for, and the patch that fills it."""
    found: list[list[str]] = []
    plain = module.training_step

    def step(self: StageModule, *args: Any) -> Any:
        before = len(far.waits)
        out = plain(self, *args)
        found.append(far.waits[before:])
        return out

    return found, patch.object(module, "training_step", step)


@pytest.mark.parametrize("stage, module, updates, chunks", [
    ("orchestrator", small_stage.OrchestratorModule, [1, 1, 1], 0),
    ("teacher", small_stage.TeacherModule, [1, 1, 1], 0),
    ("dmd", small_stage.DmdModule, [2, 1, 2], 0),  # every second step updates the student too
    ("rollout", small_stage.RolloutModule, [2, 1, 2], 2)])
def test_a_step_waits_once_per_update_and_once_per_chunk(stage: str, module: type[StageModule], updates: list[int],
                                                         chunks: int, far: FarDevice, tmp_path: Path) -> None:
    waits, watched = waits_of_steps(module, far)
    with watched:
        assert small_stage.train(tmp_path, stage, 2, log_every=8, val_every=2)
        assert small_stage.train(tmp_path, stage, 3, log_every=8, val_every=2)  # and goes on from its checkpoint
    for found, due in zip(waits, updates, strict=True):
        found = [w for w in found if "denoiser/positions.py" not in w]  # grids are sent once
        assert sum(UPDATE in w for w in found) == due, found
        assert sum(CHUNK in w for w in found) == chunks, found
        assert len(found) == due + chunks, found


def test_two_devices_in_one_operation_and_waits_are_seen() -> None:
    with far_device() as mode:
        x = torch.ones(3).to("meta")
        assert x.device.type == "meta" and float((x + x).sum()) == 6.0
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(3)
        before = len(mode.waits)
        torch.ones(3).pin_memory().to("meta", non_blocking=True)
        assert len(mode.waits) == before
        x[x > 0]
        assert "by a mask" in mode.waits[-1]


def test_fixed_streams_speak_where_the_models_are() -> None:
    codecs = {"video_codec": PlainVideo(), "audio_codec": PlainSound()}
    with far_device() as mode, torch.no_grad():
        who = replace(tiny.character(), **codecs).to("meta")
        fixed = FixedStreams(who, 0)
        fixed.begin(tiny.streams(small_stage.WORDS).to("meta"))
        videos = fixed.sample_videos({"teacher": (who.denoiser, student_plan(who.diffusion), nullcontext)})
        assert [len(v.panels) for v in videos] == [2, 2] and len(list(fixed.probe(2))) == 2
        before = len(mode.waits)
        figures = fixed.go_on(2)
        waits = [w for w in mode.waits[before:] if CHUNK in w]
    # One a chunk where it is generated, one where the pointer's picture hears it again.
    assert figures["stream/age_chunks"] == 2.0 and len(waits) == 4
    near = FixedStreams(replace(tiny.character(), **codecs), 0)
    near.begin(tiny.streams(small_stage.WORDS))
    assert near.go_on(2) == pytest.approx(figures)
