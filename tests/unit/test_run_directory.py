"""Run folder, provenance, completion marks and the chain of stages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.chain import run_all
from pipelines.completion import clear_mark, is_complete, set_mark
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.config.schema import RunConfig
from pipelines.provenance import code_state, provenance
from pipelines.run_directory import RunDirectory, write_atomically
from streamchar.errors import InputError


def configured(root: Path, *more: str) -> RunConfig:
    return compose(parse([f"root={root}", "preset=tiny", "name=r", *more]))


def test_folder_is_a_function_of_the_name(tmp_path: Path) -> None:
    run = RunDirectory.of(configured(tmp_path))
    assert run.stage("dmd") == tmp_path / "r" / "dmd"
    with pytest.raises(ValueError, match="no stage"):
        run.stage("dmdd")


def test_missing_input_names_its_maker_and_the_command(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, "r")
    with pytest.raises(InputError, match="stage=teacher .*makes it.*pipelines/run.py stage=teacher name=r"):
        run.input("teacher", "checkpoints")
    (tmp_path / "r/teacher/checkpoints").mkdir(parents=True)
    assert run.input("teacher", "checkpoints") == tmp_path / "r/teacher/checkpoints"


def test_open_writes_config_and_provenance_on_rank_0_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = configured(tmp_path)
    run = RunDirectory.of(cfg)
    monkeypatch.setenv("RANK", "1")
    assert not run.open("encode", cfg).exists()
    monkeypatch.setenv("RANK", "0")
    folder = run.open("encode", cfg, ["run.py", "stage=encode"])
    saved = json.loads((folder / "provenance.json").read_text())
    assert saved["command"] == ["run.py", "stage=encode"]
    assert saved["versions"]["torch"].startswith("2.") and len(saved["lock_sha256"]) == 64
    assert saved["hardware"]["cores"] >= 1
    assert "preset: tiny" in (folder / "config.yaml").read_text()
    assert not list(folder.glob(".*"))


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("a file in the way")
    with pytest.raises(InputError, match="another root="):
        RunDirectory(tmp_path, "r").open("encode", configured(tmp_path))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    write_atomically(target, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.run_directory.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, "new")
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_code_state_tells_changes_apart(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True,
                       capture_output=True)

    assert code_state(tmp_path) == {"revision": None, "dirty": None, "difference_sha256": None}
    git("init")
    (tmp_path / "f").write_text("1")
    git("add", "f")
    git("commit", "-m", "one")
    clean = code_state(tmp_path)
    assert clean["dirty"] is False and len(clean["revision"]) == 40
    (tmp_path / "f").write_text("2")
    changed = code_state(tmp_path)
    (tmp_path / "g").write_text("new")
    added = code_state(tmp_path)
    (tmp_path / "g").write_text("newer")
    hashes = {s["difference_sha256"] for s in (changed, added, code_state(tmp_path))}
    assert changed["dirty"] is True and changed["revision"] == clean["revision"] and len(hashes) == 3


def test_provenance_is_plain_json(tmp_path: Path) -> None:
    assert json.loads(json.dumps(provenance(["x"])))["python"].startswith("3.")


def test_marks_follow_settings_and_inputs(tmp_path: Path) -> None:
    cfg = configured(tmp_path)
    run = RunDirectory.of(cfg)
    for stage in ("prepare", "encode", "orchestrator", "teacher"):
        run.stage(stage).mkdir(parents=True)
        set_mark(run, stage, cfg, 1.0)
    assert all(is_complete(run, s, cfg) for s in ("prepare", "encode", "orchestrator", "teacher"))
    longer = configured(tmp_path, "teacher.steps=99")
    assert is_complete(run, "orchestrator", longer) and not is_complete(run, "teacher", longer)
    assert is_complete(run, "encode", configured(tmp_path, "data.batch_size=3"))
    assert not is_complete(run, "encode", configured(tmp_path, "clock.fps=20"))
    assert is_complete(run, "teacher", configured(tmp_path, "stream.seed=4"))
    set_mark(run, "encode", cfg, 1.0)
    assert is_complete(run, "prepare", cfg) and not is_complete(run, "teacher", cfg)
    clear_mark(run, "encode")
    assert is_complete(run, "encode", cfg) is None
    (run.stage("prepare") / "complete.json").write_text("{torn")
    assert is_complete(run, "prepare", cfg) is None


def test_chain_runs_what_is_missing_and_skips_what_is_complete(tmp_path: Path) -> None:
    cfg = configured(tmp_path, "chain=[prepare,encode,teacher]")
    run = RunDirectory.of(cfg)
    ran: list[str] = []

    def run_stage(stage_cfg: RunConfig) -> float:
        ran.append(stage_cfg.stage)
        run.open(stage_cfg.stage, stage_cfg)
        set_mark(run, stage_cfg.stage, stage_cfg, 61.0)
        return 61.0

    console = Console(record=True, width=200, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    run_all(cfg, run_stage, console)
    assert ran == ["prepare", "encode", "teacher"]
    run_all(cfg, run_stage, console)
    assert len(ran) == 3
    run_all(configured(tmp_path, "chain=[prepare,encode,teacher]", "teacher.steps=77"), run_stage, console)
    assert ran[3:] == ["teacher"]
    own = configured(tmp_path, "chain=[prepare]", "data.shards=/somewhere")
    run_all(own, run_stage, console)
    assert len(ran) == 4
    text = console.export_text()
    assert "1 min 01 s" in text and "with the same settings" in text and "not needed" in text
