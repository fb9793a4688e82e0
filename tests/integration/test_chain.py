"""The whole chain as a user runs it: ``stage=all preset=tiny`` in an own process, from another directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from callbacks import checkpoint_files as files
from callbacks.stored_weights import newest_weights
from datamodules.shards import expand_braces
from pipelines.config.places import CHECKOUT
from pipelines.config.schema import TRAINING
from streamchar.hub import from_pretrained
from tests.kills import end, memory_chunk, start
from tests.same_state import checkpoint_differences, metrics_differences

RUN = str(CHECKOUT / "pipelines" / "run.py")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(CHECKOUT / "pipelines" / "run.py"), *arguments], cwd=cwd, text=True,
                          capture_output=True, timeout=580, check=False, env={**os.environ, "COLUMNS": "200"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the chain was run with ``root=here``."""
    folder = tmp_path_factory.mktemp("chain")
    done = run("stage=all", "preset=tiny", "root=here", "stages.orchestrator.val_every=2", cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "output.txt").write_text(done.stdout)
    return folder


def test_the_layout_that_other_programs_rely_on(made: Path) -> None:
    home = made / "here" / "tiny"
    for stage in ("prepare", "encode", *TRAINING, "evaluate", "stream"):
        for name in ("config.yaml", "provenance.json", "complete.json"):
            assert (home / stage / name).is_file(), f"{stage}/{name}"
    assert (home / "prepare/shards/shards.json").is_file()
    assert (home / "encode/latents/train/shards.json").is_file()
    json.loads((home / "evaluate/report.json").read_text())
    timing = json.loads((home / "stream/timing.json").read_text())
    assert timing and (home / "stream/clip.mp4").stat().st_size > 1000


@pytest.mark.parametrize("stage", TRAINING)
def test_training_stages_log_every_step_and_end_where_they_should(made: Path, stage: str) -> None:
    home = made / "here" / "tiny" / stage
    rows = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
    assert all({"step", "time"} <= set(row) for row in rows)
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps) and steps[-1] == {"orchestrator": 4, "teacher": 4, "dmd": 5, "rollout": 5}[stage]
    validated = [row["step"] for row in rows if any(key.startswith("eval/") for key in row)]
    assert validated == {"orchestrator": [0, 2, 4]}.get(stage, [0, steps[-1]])
    assert list((home / "checkpoints").iterdir()) and (home / "samples").is_dir()


@pytest.mark.slow
def test_an_lm_compiled_in_whole_layers_learns_what_an_eager_one_does(made: Path) -> None:
    """As a stage does it, with the compiler that is there."""
    settings = ("preset=tiny", "root=here", "name=compiled", "data.latents=here/tiny/encode")
    assert run("stage=encode", *settings, cwd=made).returncode == 0
    done = run("stage=orchestrator", *settings, "stages.orchestrator.compile=true", "stages.orchestrator.val_every=2",
               cwd=made)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "nothing is compiled" not in done.stdout + done.stderr
    compiled, eager = ([json.loads(line) for line in (made / "here" / name / "orchestrator/metrics.jsonl").open()]
                       for name in ("compiled", "tiny"))
    for name in ("train/loss", "eval/loss", "stability/grad_norm_orchestrator"):
        ours, theirs = ([row[name] for row in rows if name in row] for rows in (compiled, eager))
        assert len(ours) == len(theirs) >= 3 and ours == pytest.approx(theirs, rel=1e-3), name


def test_every_logged_figure_is_explained_and_nothing_else(made: Path) -> None:
    rows = [json.loads(line) for stage in TRAINING
            for line in (made / "here/tiny" / stage / "metrics.jsonl").read_text().splitlines()]
    logged = {name for row in rows for name in row} - {"step", "time"}
    lines = [line for line in (CHECKOUT / "docs/dashboards.md").read_text().splitlines() if line.startswith("| `")]
    explained = [(line, {name for pattern in re.findall(r"`([^`]+)`", line.split("|")[1])
                         for name in expand_braces(pattern)}) for line in lines]
    assert logged <= set().union(*(names for _, names in explained))
    # The tiny stages save at their end alone, are watched on a CPU, and have one set of clips.
    idle = [line for line, names in explained if not names & logged and "GPU only" not in line
            and "with `ckpt_every`" not in line and "with `data.mix`" not in line]
    assert not idle


def test_a_rollout_killed_while_it_saves_ends_as_undisturbed(made: Path, tmp_path: Path) -> None:
    for stage in ("encode", "orchestrator", "teacher", "dmd"):
        shutil.copytree(made / "here/tiny" / stage, tmp_path / "tiny" / stage)
    folder, log = tmp_path / "tiny/rollout", tmp_path / "log"
    command = [RUN, "stage=rollout", "preset=tiny", f"root={tmp_path}", "trainer.ckpt_every=1"]
    part = folder / "checkpoints/step_00000003.part"
    assert end(start(command, log), lambda process: part.exists()) is None, log.read_text()[-3000:]
    newest = files.newest_complete(folder / "checkpoints")
    assert newest is not None and files.step_of(newest) in (2, 3)
    assert (memory_chunk(newest) or 0) > 0  # persistent streams are on their way
    assert end(start(command, log)) == 0, log.read_text()[-3000:]
    assert checkpoint_differences(folder, made / "here/tiny/rollout") == []
    assert metrics_differences(folder, made / "here/tiny/rollout") == []


@pytest.mark.slow
def test_dmd_cut_off_in_its_start_and_after_it_ends_as_undisturbed(made: Path, tmp_path: Path) -> None:
    for stage in ("encode", "orchestrator", "teacher"):
        shutil.copytree(made / "here/tiny" / stage, tmp_path / "here/tiny" / stage)
    # Two iterations of the student's start; the optimiser of the start is gone when the third has been made.
    for steps in (1, 3, 5):
        done = run("stage=dmd", "preset=tiny", "root=here", f"trainer.max_steps={steps}", cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in ("student", "critic"):
        parts = [newest_weights(home / "here/tiny/dmd/checkpoints", name, "trained") for home in (made, tmp_path)]
        assert parts[0].keys() == parts[1].keys()
        assert all(torch.equal(parts[0][key], parts[1][key]) for key in parts[0]), name


@pytest.mark.slow
def test_a_teacher_starts_from_a_wan_transformer_and_its_export_stands_alone(made: Path, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs the extra 'diffusers'")
    for stage in ("prepare", "encode", "orchestrator"):
        shutil.copytree(made / "here/tiny" / stage, tmp_path / "tiny" / stage)
    channels = json.loads((made / "here/tiny/encode/latents/train/shards.json").read_text())["video"][0]
    wan = diffusers.WanTransformer3DModel(
        patch_size=(1, 3, 3), num_attention_heads=2, attention_head_dim=32, in_channels=channels, out_channels=channels,
        text_dim=8, freq_dim=256, ffn_dim=128, num_layers=2)
    wan.save_pretrained(tmp_path / "wan-tiny")
    options = ("preset=tiny", f"root={tmp_path}", f"denoiser.pretrained={tmp_path / 'wan-tiny'}",
               "denoiser.caption_bias=true")
    done = run("stage=teacher", *options, "trainer.max_steps=1", "teacher.optimizer.lr=1e-9",
               "teacher.optimizer.muon_lr=1e-9", cwd=tmp_path)
    assert done.returncode == 0 and "denoiser started from" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    done = run("stage=export", "from=teacher", f"out={tmp_path / 'export'}", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    shutil.rmtree(tmp_path / "wan-tiny")
    denoiser = from_pretrained(tmp_path / "export").denoiser
    theirs = wan.blocks[1].attn1.to_q.weight
    torch.testing.assert_close(denoiser.blocks[1].attn1.to_q.weight, theirs, atol=1e-6, rtol=0)
    assert str(tmp_path) not in (tmp_path / "export/config.json").read_text()
    assert "`wan-tiny`: that model's licence" in (tmp_path / "export/README.md").read_text()


def test_output_tells_each_stage_once_and_where_the_clip_is(made: Path) -> None:
    text = (made / "output.txt").read_text()
    for stage in ("prepare", "encode", *TRAINING, "evaluate", "stream"):
        assert sum(line.startswith(f"{stage} ") and " done " in line for line in text.splitlines()) == 1
    assert str(made / "here/tiny/stream/clip.mp4") in text


def test_a_second_run_skips_everything(made: Path) -> None:
    clip = made / "here/tiny/stream/clip.mp4"
    before = clip.stat().st_mtime_ns
    done = run("stage=all", "preset=tiny", "root=here", cwd=made)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("with the same settings") == 8 and clip.stat().st_mtime_ns == before


def test_stream_needs_no_data_only_picture_voice_and_text(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "here" / "tiny", tmp_path / "here" / "moved")
    prompt = tmp_path / "here/moved/prepare/prompt"
    shutil.copy(prompt / "face.png", tmp_path / "face.png")
    shutil.copy(prompt / "voice.wav", tmp_path / "voice.wav")
    shutil.rmtree(tmp_path / "here/moved/prepare")
    shutil.rmtree(tmp_path / "here/moved/encode/latents")
    done = run("stage=stream", "root=here", "name=moved", "transcript=bin blue", "reference=face.png",
               "voice=voice.wav", "out=clip.mp4", "stream.seconds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "preset=tiny, with which the run moved was made" in done.stdout
    assert (tmp_path / "clip.mp4").stat().st_size > 1000


def test_export_loads_without_the_run(made: Path, tmp_path: Path) -> None:
    done = run("stage=export", "preset=tiny", f"root={made / 'here'}", "from=rollout", "out=model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"model.safetensors", "config.json"} <= {p.name for p in (tmp_path / "model").iterdir()}
    from streamchar.hub import from_pretrained

    character = from_pretrained(tmp_path / "model")
    assert character.few_step and character.clock.chunk_frames == 17
    card = (tmp_path / "model/README.md").read_text()
    assert "no real person's likeness" in card and "| rollout | 5 | 2 |" in card
    assert "words: word errors" in card and "before these" not in card


def test_an_exported_model_speaks_without_a_run(made: Path, tmp_path: Path) -> None:
    done = run("stage=export", "preset=tiny", f"root={made / 'here'}", "out=small", "export.dtype=int8",
               "export.prompt=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    tensors = load_file(str(tmp_path / "small/model.safetensors"))
    models = [t for name, t in tensors.items() if name.startswith(("denoiser.", "orchestrator."))]
    assert {t.dtype for t in models if t.ndim > 1} == {torch.int8}
    assert {t.dtype for name, t in tensors.items() if "_codec." in name and t.is_floating_point()} == {torch.float32}
    assert (tmp_path / "small/prompt/face.png").is_file()
    done = run("stage=stream", "model=small", "root=elsewhere", "transcript=bin blue", "stream.seconds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "elsewhere/given-small/stream/clip.mp4").stat().st_size > 1000
    shutil.copytree(tmp_path / "small", tmp_path / "again")
    done = run("stage=export", "preset=tiny", f"root={made / 'here'}", "out=again", cwd=tmp_path)
    assert done.returncode == 0 and not (tmp_path / "again/prompt/face.png").exists(), done.stderr[-2000:]
    done = run("stage=stream", "model=nobody", "root=elsewhere", cwd=tmp_path)
    assert done.returncode == 2 and "nobody" in done.stderr and "stage=export" in done.stderr
