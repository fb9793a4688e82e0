"""Adapters through the stages: trained, resumed, gone on with, merged; and a student smaller than its teacher."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from callbacks import checkpoint_files as files
from pipelines.config.schema import RunConfig
from pipelines.origins import load_teacher
from pipelines.resume import made_by
from pipelines.roles import begin_roles, check_size, first_student, load_role, spread_blocks, student_spec
from pipelines.run_directory import RunDirectory
from streamchar.codecs.config import AudioCodecConfig, CodecConfig, VideoCodecConfig
from streamchar.codecs.store import fit_codecs
from streamchar.denoiser.adapters import adapted
from streamchar.denoiser.model import Context, Denoiser
from streamchar.denoiser.student_config import StudentConfig
from streamchar.distributed.sharding import Sharding, open_up
from streamchar.errors import CheckpointError, InputError
from streamchar.hub.model_spec import ModelSpec
from streamchar.hub.pretrained import export_character, from_pretrained
from streamchar.rollout.stream import stream_chunks
from streamchar.types import Latents
from tests import tiny_models as tiny
from tests.integration.test_strategies import assert_alike
from tests.integration.test_strategies import train as train_apart
from tests.small_export import export, stand_in
from tests.small_stage import LORA, WORDS, answers, train

ADAPTERS = ("roles=lora", "start=1")
WHOLE_BASE = {"zero-3": ["frozen=replicate", "whole_below=50"]}


def spec() -> ModelSpec:
    who = tiny.character()
    return ModelSpec(who.denoiser.config, who.orchestrator.config, who.clock, who.window, who.diffusion, who.size)


def config(**student: Any) -> RunConfig:
    cfg = RunConfig(student=StudentConfig(**student))
    for stage in (cfg.stages.dmd, cfg.stages.rollout):
        stage.roles, stage.lora = ("full" if student else "lora"), LORA
    return cfg


def newest(root: Path, stage: str) -> dict[str, Any]:
    path = files.newest_complete(root / "run" / stage / "checkpoints")
    assert path is not None
    return files.load(path)


def chain(root: Path, cfg: RunConfig, cuts: tuple[int, ...] = (4,)) -> RunDirectory:
    """A teacher, and students by ``dmd`` on it, in as many parts as asked for."""
    directory = RunDirectory(root, "run")
    if not directory.has("teacher"):
        train(root, "teacher", 2, val_every=0)
    made = {"made.teacher": made_by(directory, "teacher")}
    for steps in cuts:
        teacher = load_teacher(cfg, spec(), directory)
        torch.manual_seed(0)
        student, critic = begin_roles(cfg, spec(), directory, "dmd", None, teacher)
        train(root, "dmd", steps, roles=cfg.stages.dmd.roles, made=made, denoisers=[student, teacher, critic],
              val_every=0)
    return directory


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return chain(tmp_path_factory.mktemp("lora"), config())


def test_adapters_alone_are_stored_averaged_and_moved_by_optimisers(lora: RunDirectory) -> None:
    state = newest(lora.root, "dmd")
    weights = state["module"]["weights"]
    assert {name.split(".")[0] for name in weights} == {"student", "critic"}
    assert all(".lora_" in name for name in weights)
    assert all(".lora_" in name for name in state["ema"]["student"]["weights"])
    for role, states in state["module"]["optimizers"].items():
        assert states.keys() == {name for name in weights if name.startswith(role)}
    assert any(bool(value.any()) for name, value in weights.items() if ".lora_B." in name)


def test_cut_in_two_it_ends_as_in_one_go(lora: RunDirectory, tmp_path: Path) -> None:
    found = chain(tmp_path, config(), (2, 4))
    whole, cut = newest(lora.root, "dmd"), newest(found.root, "dmd")
    for a, b in ((whole["module"]["weights"], cut["module"]["weights"]),
                 (whole["ema"]["student"]["weights"], cut["ema"]["student"]["weights"])):
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_rollout_goes_on_with_dmds_adapters_and_exports_merge_them(lora: RunDirectory, tmp_path: Path) -> None:
    teacher = load_teacher(config(), spec(), lora)
    student, critic = begin_roles(config(), spec(), lora, "rollout", "dmd", teacher)
    plain = load_role(config(), spec(), lora, "dmd", "student")
    full = config()
    full.stages.rollout.roles = "full"
    beginning = begin_roles(full, spec(), lora, "rollout", "dmd", teacher)
    assert _differ(plain, teacher) > 1e-4 and _differ(critic, teacher) > 1e-4
    assert _differ(plain, student) < 1e-5
    assert _differ(beginning[0], student) < 1e-5 and _differ(beginning[1], critic) < 1e-5
    assert not any(p.requires_grad for p in teacher.parameters())
    train(lora.root, "rollout", 2, roles="lora", denoisers=[student, teacher, critic], val_every=0)
    assert all(".lora_" in name for name in newest(lora.root, "rollout")["module"]["weights"])


def test_adapters_of_another_teacher_are_refused(tmp_path: Path) -> None:
    directory = chain(tmp_path, config(), (2,))
    train(tmp_path, "teacher", 3, val_every=0)
    with pytest.raises(CheckpointError, match="trained on another teacher"):
        load_role(config(), spec(), directory, "dmd", "student")


def test_a_student_of_fewer_layers_is_trained_streamed_and_exported(tmp_path: Path) -> None:
    cfg = config(layers=1)
    directory = chain(tmp_path, cfg, (2,))
    with pytest.raises(CheckpointError, match="another architecture"):
        load_role(config(), spec(), directory, "dmd", "student")
    student = load_role(cfg, student_spec(cfg, spec()), directory, "dmd", "student")
    teacher = load_teacher(cfg, spec(), directory)
    again, critic = begin_roles(cfg, spec(), directory, "rollout", "dmd", teacher)
    assert len(student.blocks) == 1 and _differ(again, student) == 0 and len(critic.blocks) == 2

    exported, sizes = replace(tiny.character(), denoiser=student, **codecs()), student_spec(cfg, spec())
    export_character(exported, sizes, tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert len(loaded.denoiser.blocks) == 1 and _differ(loaded.denoiser, student) == 0
    assert len(list(stream_chunks(loaded, tiny.streams(WORDS), max_chunks=1))) == 1
    check_size(tmp_path / "model", sizes.denoiser)
    with pytest.raises(InputError, match="layers=1, here 2"):
        check_size(tmp_path / "model", spec().denoiser)
    given = config(layers=1, weights=str(tmp_path / "model"))
    assert _differ(first_student(given, spec(), teacher), student) == 0


def test_a_shallow_student_begins_with_blocks_spread_over_the_teachers() -> None:
    weights = {"video_in.weight": 9, **{f"blocks.{i}.scale_shift_table": i for i in range(30)}}
    for kept, wanted in ((10, [0, 3, 6, 10, 13, 16, 19, 23, 26, 29]), (30, list(range(30))), (1, [0])):
        found = spread_blocks(weights, 30, kept)  # type: ignore[arg-type]
        assert [found[f"blocks.{i}.scale_shift_table"] for i in range(kept)] == wanted
        assert len(found) == kept + 1 and found["video_in.weight"] == 9


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Stage -> its adapters trained under DDP."""
    found: dict[str, dict[str, Any]] = {}

    def of(stage: str) -> dict[str, Any]:
        if stage not in found:
            found[stage] = train_apart(tmp_path_factory.mktemp(stage), stage, 3, "ddp", *ADAPTERS)
        return found[stage]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2", "zero-1", "zero-2", "zero-3"])
@pytest.mark.parametrize("stage", ["dmd", "rollout"])
def test_two_processes_train_adapters_as_one_checkpoint(stage: str, name: str, ddp: Any, tmp_path: Path) -> None:
    """From the student's start on, hearing a guided condition; gone on with where the start is over. ZeRO-3 takes all
    adapters apart here, on a base that is whole."""
    options, wanted = (*ADAPTERS, *WHOLE_BASE.get(name, [])), ddp(stage)
    weights = wanted["module"]["weights"]
    assert weights and all(".lora_" in key for key in weights)
    train_apart(tmp_path, stage, 2, name, *options)
    assert_alike(train_apart(tmp_path, stage, 3, name, *options), wanted, exact=name == "fsdp2")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2", "zero-3"])
def test_adapters_of_two_processes_are_exported(name: str, tmp_path: Path) -> None:
    """Merged into their teacher they answer as the averaged student did in the memory of the processes."""
    stand_in(tmp_path)
    train_apart(tmp_path, "dmd", 2, name, *ADAPTERS, *WHOLE_BASE.get(name, []))
    character = export(tmp_path, "dmd", "dmd.roles=lora", f"dmd.lora.rank={LORA.rank}", f"dmd.lora.alpha={LORA.alpha}")
    in_memory = torch.load(tmp_path / "answers.pt", weights_only=True)["student"]
    torch.testing.assert_close(answers(character.denoiser), in_memory, atol=1e-5, rtol=1e-5)


def test_a_base_that_is_shared_out_stays_one(tmp_path: Path) -> None:
    """Adapters on blocks of FSDP2 (here over one rank): the frozen base has one part for all roles, and they learn as
    they do on whole weights."""
    torch.manual_seed(0)
    teacher = tiny.denoiser().requires_grad_(False)
    student, critic = (adapted(teacher, LORA, name) for name in ("student", "critic"))
    plain = deepcopy(student)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        open_up(Latents, Context)
        Sharding(init_device_mesh("cpu", (1,))).apply_all([student, critic, teacher])
        wanted, found = (_gradients(model) for model in (plain, student))
        whole = {name: value.full_tensor() for name, value in found.items()}  # type: ignore[attr-defined]
    finally:
        dist.destroy_process_group()
    assert wanted and all(".lora_" in name for name in wanted)
    torch.testing.assert_close(whole, wanted)
    base = set(teacher.parameters())
    for role in (student, critic):
        assert {p for name, p in role.named_parameters() if ".lora_" not in name} == base
        assert all(not p.requires_grad for p in base)


def _gradients(model: Denoiser) -> dict[str, torch.Tensor]:
    """Of one pass, and its parameters' by name."""
    conditions = tiny.conditions()
    made = model(tiny.latents(), torch.tensor([0.3, 0.8]), torch.ones(2, tiny.CLOCK.audio_latents, 32),
                 model.encode_context(conditions), conditions.audio_time)
    (made.video.square().mean() + made.audio.square().mean()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _differ(a: Denoiser, b: Denoiser) -> float:
    """Largest difference of two denoisers' velocities."""
    c, noisy, sigma = tiny.conditions(), tiny.latents(), torch.tensor([0.3, 0.8])
    c_a = torch.ones(2, tiny.CLOCK.audio_latents, 32)
    with torch.no_grad():
        x, y = (m(noisy, sigma, c_a, m.encode_context(c), c.audio_time) for m in (a, b))
    return max(float((x.video - y.video).abs().max()), float((x.audio - y.audio).abs().max()))


def codecs() -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    clips = [((torch.rand(9, 3, 16, 16, generator=g) * 255).byte(), 0.1 * torch.randn(8000, generator=g))
             for _ in range(4)]
    made = fit_codecs(CodecConfig(VideoCodecConfig(channels=4), AudioCodecConfig(channels=6, iterations=2)), clips)
    return {"video_codec": made.video, "audio_codec": made.audio}
