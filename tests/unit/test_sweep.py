"""Sweeps: what their files may say, that every member is checked before anything is written, and their runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import sweep as sweeps
from pipelines.config.compose import compose
from pipelines.config.errors import ConfigError
from pipelines.config.grammar import parse
from pipelines.config.places import CONF
from pipelines.run_directory import RunDirectory
from streamchar.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run ``m`` that is ready for dmd."""
    for made in ("encode/latents", "orchestrator/checkpoints", "teacher/checkpoints", "dmd/checkpoints"):
        (tmp_path / "runs/m" / made).mkdir(parents=True)
    return tmp_path / "runs"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "rates.yaml", "stage: dmd\ngrid: {dmd.critic.lr: [1e-4, 2e-4], "
                                          "dmd.generator.betas: [[0.0, 0.9], [0.0, 0.99]]}\n")


def prepare(file: Path, root: Path, *settings: str) -> tuple[int, RunDirectory]:
    given = [str(file), "preset=tiny", "name=m", f"root={root}", *settings]
    return sweeps.main(given), RunDirectory(root, "m-rates")


def test_members_are_runs_with_settings_of_their_own_and_the_stages_before(
        file: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = prepare(file, root)
    assert code == 0 and capsys.readouterr().out == f"dmd m-rates 4 {folder.path}\n"
    settings = (folder.path / "members/3").read_text().splitlines()
    assert settings == ["stages.dmd.critic.lr=0.0002", "stages.dmd.generator.betas=[0.0, 0.99]"]
    cfg = compose(parse(["preset=tiny", "name=m-rates-3", *settings]))
    assert cfg.stages.dmd.critic.lr == 2e-4 and cfg.stages.dmd.generator.betas == [0.0, 0.99]
    member = RunDirectory(root, "m-rates-3")
    assert member.input("teacher", "checkpoints").resolve() == root / "m/teacher/checkpoints"
    assert not member.has("dmd") and sweeps.swept(RunDirectory(root, "m")) == {}
    assert sweeps.swept(member) == {"sweep": "m-rates", "stages.dmd.critic.lr": 2e-4,
                                    "stages.dmd.generator.betas": [0.0, 0.99]}


def test_submitted_again_it_is_the_same_and_never_another_one(file: Path, root: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(file, root)[0] == prepare(file, root)[0] == 0
    write(file, "stage: dmd\ngrid: {dmd.critic.lr: [1e-4, 3e-4]}\n")
    assert prepare(file, root)[0] == 2 and "holds a sweep with other members" in capsys.readouterr().err
    assert "0.0002" in (root / "m-rates/members/3").read_text()


@pytest.mark.parametrize(("text", "said"), [
    ("grid: {dmd.critic.lr: [1e-4]}", "stage: nothing cannot be swept; choose one of orchestrator"),
    ("stage: dmd\ngird: {}", "unknown key gird; did you mean grid?"),
    ("stage: dmd\ngrid: {dmd.critic.lr: 1e-4}", "stages.dmd.critic.lr: must be a list of values, got 0.0001"),
    ("stage: dmd\ngrid: {seed: [1, 1]}", "the same value stands twice"),
    ("stage: dmd\ngrid: {name: [a, b]}", "name is the same in all members"),
    ("stage: dmd\ngrid: {dmd.critic.lr: [1e-4], stages.dmd.critic.lr: [1e-4]}", "stands in the grid twice"),
    ("stage: dmd\ngrid: {dmd.critic.rate: [1e-4, 2e-4]}", "unknown key stages.dmd.critic.rate"),
    ("stage: dmd\ngrid: {dmd.critic.lr: [1e-4, fast]}", "expected float, got 'fast' (member 1)"),
    ("stage: dmd\ngrid: {seed: [1], data.batch_size: [-1, 2]}", "(member 0)"),
    ("- dmd", "expected keys and values"),
    ("stage: dmd\ngrid: {seed: [" + ",".join(map(str, range(257))) + "]}", "257 members, more than 256")])
def test_what_is_wrong_is_told_before_anything_is_written(tmp_path: Path, root: Path, text: str, said: str,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = prepare(write(tmp_path / "rates.yaml", text), root)
    assert code == 2 and said in capsys.readouterr().err and not folder.path.exists()


def test_a_run_that_lacks_what_the_stage_needs_and_keys_given_twice(file: Path, root: Path) -> None:
    sweep = sweeps.read_sweep(file)
    with pytest.raises(ConfigError, match="stages.dmd.critic.lr is swept, and given on the command line too"):
        sweeps.check_members(sweep, ["preset=tiny", "name=m", f"root={root}", "dmd.critic.lr=1e-3"])
    with pytest.raises(InputError, match="stage=encode of the run 'new' makes it"):
        sweeps.check_members(sweep, ["preset=tiny", "name=new", f"root={root}"])


@pytest.mark.parametrize("path", sorted((CONF / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_that_come_along_fit_the_presets(path: Path, root: Path) -> None:
    sweep = sweeps.read_sweep(path)
    assert len(sweep.members) > 1 and sweep.about
    assert sweeps.check_members(sweep, ["preset=puppet", "name=m", f"root={root}"]).preset == "puppet"


def test_members_share_one_parent_and_a_server_that_is_away_costs_a_warning(
        file: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(file, root, "tracking.kind=mlflow", "tracking.uri=http://127.0.0.1:9")[0] == 0
    assert "members will stand alone" in capsys.readouterr().err and not (root / "m-rates-0/mlflow_run.json").exists()
    for _ in range(2):
        assert prepare(file, root, "tracking.kind=mlflow")[0] == 0
    found = {(root / name / "mlflow_run.json").read_text() for name in ("m-rates", "m-rates-0", "m-rates-3")}
    assert len(found) == 1 and json.loads(found.pop())["uri"] == f"sqlite:///{root}/mlflow.db"
