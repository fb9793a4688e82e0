"""The configuration: layers in order, types, near misses, and every problem at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from omegaconf import OmegaConf

from pipelines.config import compose as compose_module
from pipelines.config.compose import compose, to_yaml
from pipelines.config.convert import Mismatch, convert, parse_raw
from pipelines.config.errors import ConfigError
from pipelines.config.fields import describe, leaves, type_name
from pipelines.config.geometry import geometry
from pipelines.config.grammar import parse
from pipelines.config.places import CHECKOUT, choices
from pipelines.config.recall import recall
from pipelines.config.schema import RunConfig


def made(*arguments: str) -> RunConfig:
    return compose(parse(list(arguments)))


def problems(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        made(*arguments)
    return "\n".join(caught.value.problems)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own conf/ folder with one empty preset, demo."""
    from pipelines.config import places

    for module in (places, compose_module):
        monkeypatch.setattr(module, "CONF", tmp_path)
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "demo.yaml").write_text("about: nothing\n")
    return tmp_path


def test_a_brace_list_that_the_shell_wrote_out_is_told() -> None:
    files = [f"data.shards=/data/a-{n:03d}.tar" for n in range(4)]
    (problem,) = parse(["preset=tiny", *files]).problems
    assert "a-000.tar and as /data/a-001.tar" in problem and "put quotes around it" in problem
    assert parse(["data.shards=/data/a.tar", "data.shards=/other/b.tar", "seed=1", "seed=2"]).problems == []


def test_overrides_beat_groups_beat_presets_beat_defaults(conf: Path) -> None:
    (conf / "preset" / "base.yaml").write_text("denoiser: {layers: 7, width: 64, heads: 2}\nseed: 3\n")
    (conf / "preset" / "mine.yaml").write_text("extends: base\ndenoiser: {layers: 8}\n")
    (conf / "denoiser").mkdir()
    (conf / "denoiser" / "wide.yaml").write_text("width: 512\nheads: 8\n")
    cfg = made("preset=mine", "denoiser.heads=4", "denoiser=wide")
    assert (cfg.denoiser.layers, cfg.denoiser.width, cfg.denoiser.heads, cfg.seed) == (8, 512, 4, 3)
    assert made("preset=base").denoiser.layers == 7
    assert made().denoiser.layers == describe(type(cfg.denoiser))["layers"].default


def test_interpolation_reaches_other_keys(conf: Path) -> None:
    (conf / "preset" / "linked.yaml").write_text("seed: 5\nstream: {seed: '${seed}'}\n")
    assert made("preset=linked").stream.seed == 5
    assert made("preset=linked", "seed=9").stream.seed == 9


def test_guidance_away_from_no_text_needs_dropped_text() -> None:
    text = problems("stage=all", "preset=demo", "diffusion.guidance_null=text", "stages.orchestrator.drops.text=0.1")
    assert "stages.teacher.drops.text is 0" in text and "stages.orchestrator.drops.text" not in text
    text = problems("stage=teacher", "preset=demo", "teacher.drops.condition=0")
    assert "stages.teacher.drops.condition is 0" in text
    made("stage=teacher", "preset=demo", "teacher.drops.condition=0", "diffusion.guidance_video=1",
         "diffusion.guidance_audio=1")
    assert "must be between 0 and 1" in problems("preset=demo", "teacher.drops.text=7")
    text = problems("stage=orchestrator", "preset=demo", "diffusion.few_step_guidance=3")
    assert "diffusion.few_step_guidance=3" in text and "stages.orchestrator.drops.text is 0" in text
    assert "must be 1 (none) or more" in problems("preset=demo", "diffusion.few_step_guidance=0.5")


def test_a_given_model_belongs_to_streaming() -> None:
    assert "model=x is for stage=stream alone" in problems("stage=evaluate", "model=x")
    assert "leave from=" in problems("stage=stream", "model=x", "from=teacher")


def test_all_problems_come_at_once_with_the_nearest_key() -> None:
    text = problems("stage=rolout", "data.batchsize=3", "clock.fps=abc", "clock.chunk_frames=32", "batch_size=4",
                    "window.sink_latents=99", "junk", "--dryrun", "dmd.critic.lr=-1")
    for part in ("unknown stage=rolout; did you mean rollout?",
                 "unknown key data.batchsize; did you mean data.batch_size?",
                 "clock.fps (command line): expected float, got 'abc'",
                 "clock.chunk_frames=32 must be 1 + 4 n, for example 29 or 33",
                 "unknown key batch_size; did you mean",
                 "window.sink_latents=99 must be between 1 and",
                 "cannot read 'junk'",
                 "unknown option --dryrun; did you mean --dry-run?",
                 "stages.dmd.critic: lr=-1.0"):
        assert part in text
    assert text.count("\n") == 8


def test_presets_are_checked_as_the_command_line_is(conf: Path) -> None:
    (conf / "preset" / "bad.yaml").write_text("clock: {fps: fast, frames: 3}\ndata: 5\nsede: 1\nextends: demo\n")
    text = problems("preset=bad")
    assert "clock.fps (conf/preset/bad.yaml): expected float, got 'fast'" in text
    assert "conf/preset/bad.yaml: unknown key clock.frames" in text
    assert "conf/preset/bad.yaml: data is a group of keys, got 5" in text
    assert "conf/preset/bad.yaml: unknown key sede; did you mean seed?" in text


def test_broken_preset_files(conf: Path) -> None:
    (conf / "preset" / "torn.yaml").write_text("clock: {fps: 2")
    (conf / "preset" / "a.yaml").write_text("extends: b\n")
    (conf / "preset" / "b.yaml").write_text("extends: a\n")
    assert "not readable as YAML" in problems("preset=torn")
    assert "a -> b -> a" in problems("preset=a")
    assert "unknown preset=dmo; did you mean demo?" in problems("preset=dmo")


def test_text_stays_text_and_null_is_null() -> None:
    cfg = made("stage=stream", "transcript=007 yes", "reference=none", "voice=null", "name=12")
    assert cfg.stream.transcript == "007 yes"
    assert cfg.stream.reference == "none"
    assert cfg.stream.voice is None
    assert cfg.name == "12"
    assert made("stage=stream", "transcript=").stream.transcript == ""


def test_short_keys(tmp_path: Path) -> None:
    cfg = made("stage=export", f"out={tmp_path}/x", "from=dmd")
    assert (cfg.export.out, cfg.export.from_stage) == (f"{tmp_path}/x", "dmd")
    assert made(f"out={tmp_path}/x.mp4", "stage=stream").stream.out == f"{tmp_path}/x.mp4"
    assert made("dmd.steps=270").stages.dmd.steps == 270
    assert made("stage.orchestrator.steps=8").stages.orchestrator.steps == 8
    assert made("orchestrator.layers=2").orchestrator.layers == 2


def test_paths_start_where_the_user_stands_but_presets_at_the_checkout(
        conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (conf / "preset" / "p.yaml").write_text("data: {shards: [some/a.tar, 'https://x/b.tar']}\n")
    monkeypatch.chdir(tmp_path)
    cfg = made("preset=p", "data.val_shards=val", "root=here")
    assert cfg.data.shards == [str(CHECKOUT / "some/a.tar"), "https://x/b.tar"]
    assert cfg.data.val_shards == str(tmp_path / "val")
    assert cfg.root == str(tmp_path / "here")
    assert made().root == str(CHECKOUT / "runs")


def test_a_run_remembers_its_preset(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "encode"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(made("preset=tiny")))
    line = parse([f"root={tmp_path}", "name=mine", "stage=stream"])
    assert "preset=tiny" in (recall(line) or "")
    assert compose(line).preset == "tiny"
    given = parse([f"root={tmp_path}", "name=mine", "preset=demo"])
    assert recall(given) is None and compose(given).preset == "demo"


@pytest.mark.parametrize("preset", choices("preset"))
def test_every_preset_is_sound_and_survives_its_own_yaml(preset: str) -> None:
    cfg = made(f"preset={preset}")
    assert cfg.name == preset
    saved = OmegaConf.to_container(OmegaConf.create(to_yaml(cfg)))
    assert isinstance(saved, dict)
    assert convert(saved, RunConfig) == cfg


def test_every_key_has_a_docstring() -> None:
    assert [path for path, field in leaves(RunConfig).items() if not field.doc] == []


@pytest.mark.parametrize(("value", "kind", "expected"), [
    (3, float, 3.0), ("1e-4", float, 1e-4), (4.0, int, 4), (None, int | None, None), ([1, 2], list[float], [1.0, 2.0]),
    ([1, 2], tuple[int, int], (1, 2)), ("a", Literal["a", "b"], "a"), (7, str, "7"), ("x", list[str] | str | None, "x"),
])
def test_convert(value: object, kind: object, expected: object) -> None:
    got = convert(value, kind)
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize(("value", "kind"), [
    (1.5, int), (True, int), ("yes", bool), (1, bool), (None, int), ("c", Literal["a", "b"]), ([1], int),
    ("1", list[int]),
    ([1], tuple[int, int]), ("inf", int), (["x"], list[int]),
])
def test_convert_refuses(value: object, kind: object) -> None:
    with pytest.raises(Mismatch):
        convert(value, kind)


def test_parse_raw_lists_where_lists_are_taken() -> None:
    assert parse_raw("[a, b]", list[str] | str) == ["a", "b"]
    assert parse_raw("a,b", list[str] | str) == "a,b"
    assert parse_raw("1e-3", float) == 1e-3


def test_docstrings_are_inherited_and_types_read_well() -> None:
    @dataclass
    class Base:
        x: int | None = None
        """First."""

    @dataclass
    class Child(Base):
        y: list[str] | None = None
        """Second,
        in two lines."""

    assert [f.doc for f in describe(Child).values()] == ["First.", "Second, in two lines."]
    assert type_name(Literal["a", "b"]) == "'a' | 'b'"
    assert type_name(describe(Base)["x"].type) == "int | null"


def test_sizes_that_do_not_fit_together() -> None:
    assert "data.size=100 must be a multiple of 24 pixels" in problems("preset=demo", "data.size=100")
    assert "prepare.fps=24 and clock.fps=25 must be equal" in problems("preset=demo", "stage=all", "prepare.fps=24")
    assert made("preset=demo", "stage=teacher", "prepare.fps=24").prepare.fps == 24
    assert "give data.shards=FOLDER" in problems("preset=grid_smoke", "stage=all")
    assert "needs orchestrator.pretrained" in problems("preset=5b", "stage=teacher")


def test_geometry_follows_from_codec_clock_and_data() -> None:
    shape = geometry(made("preset=5b"))
    assert (shape.grid, shape.video_channels, shape.audio_channels) == (32, 48, 128)
    assert shape.clock.video_latents == 9 and shape.clock.audio_latents == 35
    lyra = geometry(made("preset=demo", "codec.audio.kind=lyra", "codec.audio.stack=2", "codec.audio.path=/x"))
    assert (lyra.audio_channels, lyra.clock.audio_rate) == (128, 25.0)


def test_deepspeed_is_refused_where_its_engines_cannot_train() -> None:
    told = problems("stage=dmd", "preset=tiny", "trainer.strategy=deepspeed", "dmd.trajectory.optimizer.kind=muon")
    assert "set stages.dmd.critic.kind=adamw" in told and "set stages.dmd.trajectory.optimizer.kind=adamw" in told
    assert made("stage=dmd", "preset=5b", "trainer.strategy=deepspeed", "trainer.zero_stage=3",
                "trainer.activations=recompute", "dmd.trajectory.steps=2", "dmd.generator_from=2", "dmd.roles=lora",
                "--dry-run").stages.dmd.trajectory.steps == 2


@pytest.mark.parametrize("words, said", [
    ("stage=rollout rollout.accumulate=0", "stages.rollout.accumulate=0 must be at least 1"),
    ("dmd.roles=lora trainer.strategy=deepspeed trainer.frozen=shard stage=dmd", "whole on every rank with deepspeed"),
    ("dmd.roles=lora trainer.strategy=fsdp2 trainer.frozen=offload stage=dmd", "leave trainer.frozen=offload out"),
    ("dmd.roles=lora student.layers=1 stage=dmd", "another student"),
    ("rollout.roles=lora stage=rollout", "give both the same"),
    ("dmd.roles=lora rollout.roles=lora rollout.lora.rank=8 stage=rollout", "lora differ"),
    ("dmd.lora.targets=[query]", "stages.dmd.lora.targets"),
    ("student.layers=9", "student.layers=9"),
    ("student.ffn=64", "student.weights=FOLDER"),
    ("student.width=64", "student.width"),
    ("stage=dmd student.weights=/nowhere", "holds no config.json")])
def test_roles_that_do_not_go_together_are_told_first(words: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(parse(["preset=tiny", *words.split()]))
    assert said in str(error.value)


@pytest.mark.parametrize("preset", choices("preset"))
def test_debug_shortens_every_preset(preset: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    language_model = [f"orchestrator.pretrained={tmp_path}"] if preset in ("1b", "5b") else []
    cfg = made("stage=all", f"preset={preset}", "debug=fast", "data.shards=given", *language_model)
    stages = cfg.stages
    assert max(s.steps for s in (stages.orchestrator, stages.teacher, stages.dmd, stages.rollout)) <= 5
    for stage in (stages.dmd, stages.rollout):
        assert 0 < stage.trajectory.steps <= stage.generator_from < stage.steps
