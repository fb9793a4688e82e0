"""All four stage modules under a real Trainer: counters, roles, gradient shares, memory, guards, several processes."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace

import lightning as L
import pytest
import torch

from lightning_modules.config import (
    DmdStage,
    OptimizerConfig,
    OrchestratorStage,
    RolloutStage,
    TeacherStage,
    TrajectoryConfig,
)
from lightning_modules.dmd_module import DmdModule
from lightning_modules.figures import merged, read
from lightning_modules.micro_batches import micro_batches
from lightning_modules.orchestrator_module import OrchestratorModule
from lightning_modules.rollout_module import RolloutModule
from lightning_modules.teacher_module import TeacherModule
from streamchar.errors import CheckpointError, NumericsError
from streamchar.objectives.drops import DropConfig
from streamchar.rollout.memory import StreamMemory
from streamchar.types import ChunkBatch
from tests import tiny_models as tiny

WORDS = [["bin", "red", "at", "c", "nine", "now"] * 4, ["set", "blue"] * 8]
RATE = OptimizerConfig(lr=1e-3)


class Data(L.LightningDataModule):
    """Endless counted batches; chunks, or streams for rollouts."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.consumed = kind, 0

    def batch(self, number: int):
        if self.kind == "rollout":
            return tiny.streams(WORDS)
        c = tiny.conditions(4, seed=number)
        target = tiny.latents(4, seed=number)
        return ChunkBatch(c, target, torch.ones(4, tiny.CLOCK.audio_latents), torch.ones(4, dtype=torch.bool),
                          torch.full((4,), 1.5), torch.arange(4) + 4 * number, [f"k{i}" for i in range(4)])

    def train_dataloader(self):
        return torch.utils.data.DataLoader([self.batch(i) for i in range(40)], batch_size=None,
                                           collate_fn=lambda b: b)

    def advance(self, samples: int) -> None:
        self.consumed += samples

    def fixed_streams(self, count: int):
        return tiny.streams(WORDS[:count])


def build(kind: str, **options):
    character = tiny.character()
    if kind == "orchestrator":
        return OrchestratorModule(character.orchestrator, OrchestratorStage(steps=8, optimizer=RATE, **options),
                                  character.diffusion, 0)
    if kind == "teacher":
        return TeacherModule(character, TeacherStage(steps=8, optimizer=RATE, **options), 0)
    teacher, critic = deepcopy(character.denoiser), deepcopy(character.denoiser)
    rates = {"generator": OptimizerConfig(lr=1e-3, betas=[0.0, 0.999]), "critic": RATE}
    if kind == "dmd":
        return DmdModule(character, teacher, critic, DmdStage(steps=8, **rates, **options), 0)
    options = {"min_chunks": 2, "first_max_chunks": 2, "max_chunks": 2, "warmup_iterations": 0, **options}
    return RolloutModule(character, teacher, critic, RolloutStage(steps=8, **rates, **options), 0)


def train(module, kind: str, steps: int = 8, directory=None, data=None):
    data = data or Data(kind)
    trainer = L.Trainer(max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, devices=1,
                        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0)
    trainer.fit(module, data)
    return trainer, data


@pytest.mark.parametrize("kind", ["orchestrator", "teacher", "dmd", "rollout"])
def test_global_step_equals_iterations_and_every_role_moves(kind):
    module = build(kind)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    trainer, data = train(module, kind)
    assert trainer.global_step == module.iteration == 8
    assert data.consumed == 8 * (2 if kind == "rollout" else 4)
    moved = {k.split(".")[0] for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    wanted = {"orchestrator": {"orchestrator"}, "teacher": {"teacher", "orchestrator"}}
    assert moved == wanted.get(kind, {"student", "critic"})
    if kind in ("dmd", "rollout"):
        assert module.updates == {"critic": 8, "student": 2}  # iterations 0 and 5
    stored = {k.split(".")[0] for k in module.checkpoint_state_dict()["weights"]}
    assert stored == moved


@pytest.mark.parametrize("kind", ["dmd", "rollout"])
def test_the_critic_can_learn_alone_first(kind):
    module = build(kind, generator_from=3, critic_per_generator=2)
    train(module, kind, 2)
    assert module.updates == {"critic": 2} and module.generator_updates == 0
    module = build(kind, generator_from=3, critic_per_generator=2)
    trainer, _ = train(module, kind)
    assert trainer.global_step == 8 and module.generator_updates == 3
    assert module.updates == {"critic": 8, "student": 3}  # iterations 3, 5, 7
    assert module.total_updates("student") == 3


@pytest.mark.parametrize("kind", ["dmd", "rollout"])
def test_the_student_starts_at_the_ends_of_the_teachers_trajectories(kind):
    start = TrajectoryConfig(steps=3, teacher_steps=2, optimizer=RATE)
    module = build(kind, trajectory=start, generator_from=4, critic_per_generator=2)
    first = {k: v.clone() for k, v in module.student.state_dict().items()}
    trainer, _ = train(module, kind, 3)
    assert trainer.global_step == 3 and module.updates == {"trajectory": 3}
    assert module.generator_updates == 3  # averages follow the student in either way
    assert any(not torch.equal(v, first[k]) for k, v in module.student.state_dict().items())
    assert {k.split(".")[0] for k in module.checkpoint_state_dict()["weights"]} == {"student", "critic"}
    module = build(kind, trajectory=start, generator_from=4, critic_per_generator=2)
    trainer, _ = train(module, kind)
    assert trainer.global_step == 8
    assert module.updates == {"trajectory": 3, "critic": 5, "student": 2}  # student: iterations 4 and 6
    assert {role: module.total_updates(role) for role in module.updates} == module.updates


class Mixed(Data):
    """Batches of two sets, the second with one sample."""

    def batch(self, number: int):
        batch = super().batch(number)
        return replace(batch, groups=["talk"] * (len(batch) - 1) + ["puppet"])


@pytest.mark.parametrize("kind", ["dmd", "rollout"])
def test_losses_of_the_sets_of_a_mixture_are_told_apart(kind, monkeypatch):
    module = build(kind, trajectory=TrajectoryConfig(steps=1, teacher_steps=2, optimizer=RATE))
    rows, log_step = [], module.log_step
    monkeypatch.setattr(module, "log_step", lambda values, size: (rows.append((values, size)), log_step(values, size)))
    train(module, kind, 2, data=Mixed(kind))
    for (values, size), role in zip(rows, ("trajectory", "critic"), strict=True):
        for name in (f"train/{role}_audio", f"train/{role}_video"):
            talk, puppet = float(values[f"{name}_in_talk"]), float(values[f"{name}_in_puppet"])
            whole = ((size - 1) * talk + puppet) / size
            assert talk != puppet and whole == pytest.approx(float(values[name].detach()), rel=1e-4)


@pytest.mark.parametrize("kind, options", [
    ("teacher", {"drops": DropConfig(text=0.0)}), ("teacher", {"drops": DropConfig(text=0.5)}),
    ("orchestrator", {"drops": DropConfig(text=0.5)}), ("dmd", {"critic_per_generator": 1}),
    ("rollout", {"critic_per_generator": 1}), ("rollout", {"every_chunk": True}),
    ("rollout", {"trajectory": TrajectoryConfig(steps=2, teacher_steps=2, optimizer=RATE), "generator_from": 2})])
def test_accumulated_micro_batches_give_the_same_update(kind, options, monkeypatch):
    """Weights, memories, and moments: these are sums of gradients and tell any other one. One batch of four is four of
    one; of two streams, two of one."""
    found, passes, parts = [], [], 2 if kind == "rollout" else 4
    for accumulate in (1, parts):
        module = build(kind, accumulate=accumulate, **options)
        calls = []

        def counted(role, loss, backward=module.role_backward, calls=calls):
            calls.append(role)
            backward(role, loss)

        monkeypatch.setattr(module, "role_backward", counted)
        train(module, kind, 2)
        state = module.checkpoint_state_dict()
        memory = {k: v for k, v in state["extra"].get("memory", {}).items() if k != "words"}
        found.append((state["weights"], state["optimizers"], memory))
        passes.append(calls)
    assert [len(calls) for calls in passes] == [len(passes[0]), parts * len(passes[0])]
    torch.testing.assert_close(found[1], found[0], atol=2e-5, rtol=1e-3)


class PartlySeen(Data):
    """Batches of which every second has no pictures, the others one sample with them."""

    def batch(self, number: int):
        batch = super().batch(number)
        batch.has_video[:] = torch.tensor([False, False, number % 2 == 0, False])
        return replace(batch, groups=["recorded" if has else "again" for has in batch.has_video])


def test_a_teacher_learns_from_sound_alone_however_a_batch_is_cut(monkeypatch):
    """The pictures' loss is a mean over the samples that have them, not over micro-batches, most of which have none."""
    found = []
    for accumulate in (1, 4):
        module = build("teacher", accumulate=accumulate)
        rows, log_step = [], module.log_step
        monkeypatch.setattr(module, "log_step", lambda values, size, rows=rows, log_step=log_step: (
            rows.append(read(merged({}, values))), log_step(values, size)))
        train(module, "teacher", 3, data=PartlySeen("teacher"))
        assert module.nonfinite_total == 0
        state = module.checkpoint_state_dict()
        found.append((state["weights"], state["optimizers"], [row["train/loss"] for row in rows]))
        if accumulate == 1:
            whole = rows
    torch.testing.assert_close(found[1], found[0], atol=2e-5, rtol=1e-3)
    seen = [{name for name in row if name.startswith("train/video")} for row in whole]
    assert not seen[1] and seen[0] >= {"train/video", "train/video_in_recorded"}
    assert whole[0]["train/video"] == whole[0]["train/video_in_recorded"] > 0 and "train/audio_in_again" in whole[1]
    assert not any("train/video_in_again" in row for row in whole)


@pytest.mark.parametrize("kind", ["dmd", "rollout"])
def test_a_student_is_matched_to_a_teacher_guided_away_from_no_text(kind, monkeypatch):
    """Every score of the teacher is given the condition block without text, and guidance acts."""
    from lightning_modules import matching_module

    seen = []
    original = matching_module.generator_losses

    def spy(sample, scored, *rest):
        seen.append((scored.c_null - scored.c_a).abs().max())
        return original(sample, scored, *rest)

    monkeypatch.setattr(matching_module, "generator_losses", spy)
    module = build(kind)
    module.character.diffusion.guidance_null = "text"
    train(module, kind, 1)
    assert len(seen) == 1 and seen[0] > 1e-4


def test_every_chunk_of_a_rollout_gets_its_share_of_gradient():
    module = build("rollout", min_chunks=4, first_max_chunks=4, max_chunks=4)
    drawn = []
    for iteration in range(400):
        module.iteration = iteration
        assert module.chunks() == 4
        drawn.append(module.drawn_chunk("generator", 4))
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / 400
    assert (shares > 0.17).all() and (shares < 0.33).all(), shares


def test_gradient_lands_on_the_drawn_chunk_only(monkeypatch):
    from lightning_modules import rollout_module

    seen = []
    original = rollout_module.generate_chunk

    def spy(*args, exit_grad=True, **kwargs):
        result = original(*args, exit_grad=exit_grad, **kwargs)
        seen.append((result.chunk, exit_grad, result.exit.video.requires_grad))
        return result

    monkeypatch.setattr(rollout_module, "generate_chunk", spy)
    module = build("rollout", critic_per_generator=1, persistent=False, min_chunks=3, first_max_chunks=3, max_chunks=3)
    train(module, "rollout", 4)
    for i in range(4):
        chunks = seen[3 * i:3 * i + 3]
        assert [c for c, _, _ in chunks] == [0, 1, 2]
        assert sum(wanted for _, wanted, _ in chunks) == 1
        assert all(wanted == has for _, wanted, has in chunks)


def test_exit_step_and_chunks_are_the_same_on_all_ranks_and_cover_all_steps():
    a, b = build("rollout"), build("rollout")
    seen = set()
    for iteration in range(60):
        a.iteration = b.iteration = iteration
        assert (a.exit_step(), a.chunks()) == (b.exit_step(), b.chunks())
        seen.add(a.exit_step())
    assert seen == {0, 1, 2, 3}


def test_persistent_memory_goes_on_and_is_restored_bit_identically():
    whole = build("rollout")
    train(whole, "rollout", 3)
    assert isinstance(whole.memory, StreamMemory) and whole.memory.chunk == 6
    state = deepcopy(whole.checkpoint_state_dict())
    other = build("rollout")
    other.trainer = whole.trainer
    other.load_checkpoint_state(state)
    assert other.memory is not None and other.memory.chunk == 6 and other.iteration == 3
    for name, value in whole.memory.state_dict().items():
        restored = other.memory.state_dict()[name]
        assert torch.equal(value, restored) if isinstance(value, torch.Tensor) else value == restored, name


def test_a_non_finite_batch_is_dropped_counted_and_named(tmp_path):
    module = build("teacher")
    module.directory = tmp_path
    data = Data("teacher")
    good = data.batch
    data.batch = lambda i: _poisoned(good(i)) if i == 2 else good(i)
    trainer = L.Trainer(max_steps=4, accelerator="cpu", logger=False, enable_checkpointing=False, devices=1,
                        enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, data)
    assert module.nonfinite_total == 1 and module.updates["teacher"] == 3 and trainer.global_step == 4
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert json.loads((tmp_path / "nonfinite.jsonl").read_text())["keys"] == ["k0", "k1", "k2", "k3"]


def test_non_finite_batches_in_a_row_end_the_run():
    module = build("teacher", max_nonfinite=3)
    data = Data("teacher")
    good = data.batch
    data.batch = lambda i: _poisoned(good(i))
    trainer = L.Trainer(max_steps=8, accelerator="cpu", logger=False, enable_checkpointing=False, devices=1,
                        enable_progress_bar=False, enable_model_summary=False)
    with pytest.raises(NumericsError, match="3 non-finite updates in a row"):
        trainer.fit(module, data)


def _poisoned(batch: ChunkBatch) -> ChunkBatch:
    batch.target.audio[0, 0, 0] = float("nan")
    return batch


def test_a_checkpoint_of_another_architecture_is_refused_by_name():
    state = {"weights": {"teacher.audio_in.weight": torch.zeros(3, 3)}}
    with pytest.raises(CheckpointError, match="teacher.audio_in.weight is \\(3, 3\\)"):
        build("teacher").load_checkpoint_state(state)


def test_micro_batches_keep_rows_and_keys():
    batch = Data("teacher").batch(0)
    parts = micro_batches(batch, 3)
    assert [len(p) for p in parts] == [2, 2] and parts[1].keys == ["k2", "k3"]
    assert torch.equal(torch.cat([p.conditions.ref for p in parts]), batch.conditions.ref)
