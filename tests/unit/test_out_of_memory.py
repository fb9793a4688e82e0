"""Out of memory: whose work it was, and what would help most."""

from __future__ import annotations

import pytest
import torch

from lightning_modules import dmd_module, matching_module
from lightning_modules.stage_module import StageModule
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.memory_advice import memory_advice
from streamchar.distributed.out_of_memory import at_work
from streamchar.errors import DeviceMemoryError
from tests.integration.test_stage_modules import build, train


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")


def test_a_real_allocation_that_fails_names_the_innermost_work() -> None:
    with pytest.raises(DeviceMemoryError) as error, at_work("an iteration"), at_work("the critic's forward pass"):
        torch.empty(2**60, dtype=torch.uint8)
    assert error.value.doing == "the critic's forward pass" and "allocate" in str(error.value)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), at_work("scoring"):
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize("room, name, said", [
    (dmd_module, "denoise_chunk", "the student's forward pass"),
    (matching_module, "generator_losses", "scoring by teacher and critic"),
    (matching_module, "critic_losses", "the critic's forward pass"),
    (StageModule, "backward", "the student's backward pass")])
def test_the_role_is_named(room: object, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, name, full)
    with pytest.raises(DeviceMemoryError, match=f"out of memory in {said} .*Tried to allocate 20.00 MiB"):
        train(build("dmd"), "dmd", 1)


def advice(*words: str, stage: str = "dmd") -> str:
    cfg = compose(parse(["preset=demo", f"stage={stage}", *words]))
    return memory_advice(cfg, stage)


def test_the_two_best_options_are_those_of_the_plan() -> None:
    said = advice("dmd.batch_size=16")
    assert said.index("trainer.activations=recompute") > 0 and "stages.dmd.accumulate=16" in said
    assert "trainer.strategy" not in said  # one process has nobody to share with
    assert "stages.rollout.accumulate=16" in advice("rollout.batch_size=16", stage="rollout")
    # weights outweigh activations: sharing out and adapters come first
    said = advice("dmd.batch_size=1", "trainer.activations=recompute", "trainer.devices=8", "trainer.strategy=ddp",
                  "denoiser.width=768", "denoiser.heads=6", "denoiser.ffn=4096", "denoiser.audio_ffn=4096")
    assert "stages.dmd.roles=lora" in said and "trainer.strategy=fsdp2" in said


def test_nothing_that_helps_is_said_too() -> None:
    said = advice("dmd.batch_size=1", "dmd.roles=lora", "rollout.roles=lora", "trainer.activations=recompute",
                  "dmd.trajectory.steps=0")
    assert "no option of this configuration saves any" in said
