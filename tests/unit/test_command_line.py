"""The command itself: exit codes, messages, and answers before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import run as run_module
from pipelines.config.places import CHECKOUT
from pipelines.config.schema import STAGES


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(CHECKOUT / "pipelines" / "run.py"), *arguments], cwd=cwd,
                          capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_stages_presets_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module.main(["--help"]) == 0
    text = capsys.readouterr().out
    for part in (*(f"stage={s}" for s in STAGES), "preset=tiny", "preset=5b", "seed  int = 0"):
        assert part in text


def test_help_of_a_stage_prints_types_defaults_and_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module.main(["--help", "stage.dmd"]) == 0
    text = capsys.readouterr().out
    assert "stages.dmd.critic.lr  float = 4e-07" in text
    assert "stages.dmd.generator.lr  float = 2e-06" in text
    assert "Iterations: those of the student" in text


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_help(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module.main(["--help", f"stage.{stage}"]) == 0
    assert capsys.readouterr().out.strip()


def test_unknown_topic_is_an_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module.main(["--help", "stage.dmdd"]) == 2
    assert "did you mean stage.dmd?" in capsys.readouterr().err


def test_cfg_prints_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module.main(["stage=rollout", "preset=tiny", "data.batch_size=8", "--cfg"]) == 0
    text = capsys.readouterr().out
    assert "stage: rollout" in text and "batch_size: 8" in text
    assert run_module.main(["clock.fps=12.5", "--cfg", "clock"]) == 0
    assert "fps: 12.5" in capsys.readouterr().out


def test_wrong_configuration_exits_with_2_and_the_message_alone(tmp_path: Path) -> None:
    done = command("stage=rolout", "data.batchsize=1", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "did you mean rollout?" in done.stderr and "did you mean data.batch_size?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("stage", "maker"), [
    ("encode", "prepare"), ("orchestrator", "encode"), ("teacher", "encode"), ("dmd", "encode"), ("rollout", "encode"),
    ("evaluate", "encode"), ("stream", "teacher"), ("export", "teacher"),
])
def test_missing_input_names_the_stage_that_makes_it(
        stage: str, maker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module.main([f"stage={stage}", "preset=tiny", f"root={tmp_path}"]) == 2
    assert f"stage={maker} of the run 'tiny' makes it" in capsys.readouterr().err
    assert not (tmp_path / "tiny" / stage).exists()


def test_missing_inputs_are_found_in_the_order_of_the_stages(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert run_module.main([*arguments, "preset=tiny", f"root={tmp_path}"]) == 2
        return capsys.readouterr().err

    (tmp_path / "tiny" / "encode" / "latents").mkdir(parents=True)
    assert "stage=orchestrator " in refused("stage=teacher")
    assert "stage=teacher " in refused("stage=dmd")
    (tmp_path / "tiny" / "teacher" / "checkpoints").mkdir(parents=True)
    assert "stage=dmd " in refused("stage=rollout")
    assert "stage=rollout " in refused("stage=export", "from=rollout")


def test_nothing_heavy_is_loaded_for_help_configuration_and_missing_input(tmp_path: Path) -> None:
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from pipelines.run import main\n"
            "main(['--help', 'trainer']); main(['stage=teacher', 'preset=tiny', 'root=' + sys.argv[2]])\n"
            "heavy = {'torch', 'lightning', 'transformers', 'mlflow', 'deepspeed', 'av'} & set(sys.modules)\n"
            "sys.exit(f'loaded {heavy}' if heavy else 0)")
    done = subprocess.run([sys.executable, "-c", code, str(CHECKOUT), str(tmp_path)], cwd=tmp_path, text=True,
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_exit_codes_of_interruption_and_other_failures(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(cfg: object, directory: object) -> None:
        raise KeyboardInterrupt

    class Stage:
        run = staticmethod(interrupted)

    monkeypatch.setattr(run_module, "import_module", lambda name: Stage)
    assert run_module.main(["stage=prepare", "preset=tiny", f"root={tmp_path}"]) == 1
    assert not (tmp_path / "tiny" / "prepare" / "complete.json").exists()
    Stage.run = staticmethod(lambda cfg, directory: 1 // 0)  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):  # python itself ends with 1 and the traceback
        run_module.main(["stage=prepare", "preset=tiny", f"root={tmp_path}"])


def test_a_stage_leaves_config_provenance_and_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stage:
        run = staticmethod(lambda cfg, directory: None)

    monkeypatch.setattr(run_module, "import_module", lambda name: Stage)
    assert run_module.main(["stage=prepare", "preset=tiny", f"root={tmp_path}", "name=mine"]) == 0
    folder = tmp_path / "mine" / "prepare"
    found = sorted(p.name for p in folder.iterdir() if not p.match("difference_*.patch"))  # of changes here
    assert found == ["complete.json", "config.yaml", "occupied.lock", "provenance.json"]


def test_works_from_any_directory(tmp_path: Path) -> None:
    done = command("stage=encode", "preset=tiny", "root=here", cwd=tmp_path)
    assert done.returncode == 2
    assert str(tmp_path / "here" / "tiny" / "prepare") in done.stderr


def test_a_stage_that_stops_early_says_so_and_is_not_complete(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Stage:
        run = staticmethod(lambda cfg, directory: False)

    monkeypatch.setattr(run_module, "import_module", lambda name: Stage)
    assert run_module.main(["stage=all", "chain=[prepare,encode]", "preset=tiny", f"root={tmp_path}"]) == 3
    assert "goes on from there" in capsys.readouterr().out
    assert not (tmp_path / "tiny" / "prepare" / "complete.json").exists()
    assert not (tmp_path / "tiny" / "encode").exists()


def test_the_chain_refuses_to_be_started_several_times(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert run_module.main(["stage=all", "preset=tiny", f"root={tmp_path}"]) == 2
    assert "the launcher started 8" in capsys.readouterr().err


def test_only_training_runs_on_further_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(name: str) -> object:
        raise AssertionError(name)

    monkeypatch.setattr(run_module, "import_module", forbidden)
    monkeypatch.setenv("RANK", "1")
    assert run_module.main(["stage=prepare", "preset=tiny", f"root={tmp_path}"]) == 0
    assert not (tmp_path / "tiny").exists()


def test_a_chain_on_several_devices_runs_each_stage_in_an_own_process(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def started(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command[2:])
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(run_module.subprocess, "run", started)
    with pytest.raises(SystemExit) as ended:
        run_module.main(["stage=all", "preset=tiny", "name=n", f"root={tmp_path}", "trainer.devices=2"])
    assert ended.value.code == 3
    assert commands == [["stage=prepare", "preset=tiny", "name=n", f"root={tmp_path}", "trainer.devices=2"]]
