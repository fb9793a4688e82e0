"""What was not committed is kept with a run: readable, applicable, without secrets, without what git ignores."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pipelines import code_difference as told
from pipelines import provenance, run_directory
from pipelines.code_difference import code_difference, difference_file
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.run_directory import RunDirectory
from pipelines.stages.train import changed_code
from pipelines.tracking import _mlflow

IGNORED = "runs/\nsite.env\n"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True,
                          capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit and no changes."""
    folder = tmp_path / "checkout"
    (folder / "code").mkdir(parents=True)
    (folder / ".gitignore").write_text(IGNORED)
    (folder / "code" / "a.py").write_text("one\ntwo\n")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "one")
    return folder


def test_the_patch_makes_the_same_files_again(checkout: Path, tmp_path: Path) -> None:
    assert code_difference(checkout) == ""
    (checkout / "code/a.py").write_text("one\n2\n")
    (checkout / "code/new.py").write_text("x = 1\n\ny = 2")
    (checkout / "empty").write_text("")
    git(checkout, "add", "code/a.py")  # staged or not makes no difference
    git(tmp_path, "clone", "-q", str(checkout), "other")
    (tmp_path / "d.patch").write_text(code_difference(checkout))
    git(tmp_path / "other", "apply", str(tmp_path / "d.patch"))
    for name in ("code/a.py", "code/new.py", "empty"):
        assert (tmp_path / "other" / name).read_bytes() == (checkout / name).read_bytes()


def test_what_git_ignores_and_what_is_secret_is_not_in_it(checkout: Path, tmp_path: Path) -> None:
    (checkout / "runs").mkdir()
    for name in ("runs/log", "site.env", ".env", "deploy.pem", "my_credentials.json"):
        (checkout / name).write_text("hunter2\n")
    (checkout / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "outside").write_text("hunter2\n")
    (checkout / "link").symlink_to(tmp_path / "outside")
    (checkout / "code/a.py").write_text('API_KEY = "hunter2"\nuri = "https://me:hunter2@site"\n')
    said = code_difference(checkout)
    assert "hunter2" not in said and "site.env" not in said and "runs/log" not in said
    assert '+API_KEY = "***"' in said and "# deploy.pem: new, left out as a file that may hold secrets\n" in said
    git(checkout, "add", "--force", ".env")
    git(checkout, "commit", "-m", "a mistake")
    (checkout / ".env").write_text("hunter2 again\n")
    said = code_difference(checkout)
    assert "hunter2" not in said and "# .env: changed, left out as a file that may hold secrets\n" in said


def test_large_and_binary_files_are_told_and_the_whole_is_cut(checkout: Path) -> None:
    (checkout / "weights").write_bytes(b"\0" * 10)
    (checkout / "clips.txt").write_text("x\n" * 600)
    (checkout / "z.py").write_text("z = 1\n" * 30)
    said = code_difference(checkout, limit=1000)
    assert "# weights: new, 10 bytes that are no text or too many, left out\n" in said
    assert "# clips.txt: new, 1,200 bytes that are no text or too many, left out\n" in said and "+z = 1" in said
    cut = code_difference(checkout, limit=300)
    body, note = cut[:cut.index("# cut here")], cut[cut.index("# cut here"):]
    assert len(body) <= 300 and body.endswith("\n") and said.startswith(body)
    assert note == f"# cut here: {len(said) - len(body)} of {len(said)} characters are left out\n"


def test_a_repository_that_git_cannot_read_says_so(tmp_path: Path) -> None:
    assert code_difference(tmp_path) == "# git could not tell how files differ\n"


def test_a_run_keeps_the_patch_of_each_code_that_it_ran_with(checkout: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (provenance, run_directory):
        monkeypatch.setattr(module, "CHECKOUT", checkout)
    cfg = compose(parse([f"root={tmp_path / 'runs'}", "preset=tiny", "name=r"]))
    run = RunDirectory.of(cfg)
    folder = run.open("teacher", cfg, ["run.py"])
    assert not list(folder.glob("difference_*"))
    for text in ("2\n", "3\n", "2\n"):
        (checkout / "code/a.py").write_text(text)
        run.open("teacher", cfg, ["run.py"])
    code = json.loads((folder / "provenance.json").read_text())["code"]
    patches = sorted(folder.glob("difference_*.patch"))
    assert len(patches) == 2 and "+2\n" in (folder / difference_file(code)).read_text()
    kept = _mlflow(cfg.callbacks.tracking, run, "teacher").files
    assert set(patches) < set(kept)


def test_a_process_that_goes_on_with_other_code_notes_it() -> None:
    before = {"revision": "a" * 40, "dirty": True, "difference_sha256": "b" * 64}
    assert changed_code(before, before) == [] and changed_code({}, before) == []
    assert changed_code(before, {**before, "dirty": False, "difference_sha256": None}) == [
        f"-code: {'a' * 40} with difference_{'b' * 8}.patch", f"+code: {'a' * 40}"]
    assert told.difference_file({"difference_sha256": None}) == ""


def test_secret_names_count_in_any_case_and_as_folders(checkout: Path) -> None:
    for name in ("MY.PEM", "secrets/plain.txt", "credentials/aws.txt"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("before\n")
    git(checkout, "add", "MY.PEM", "secrets/plain.txt")
    git(checkout, "commit", "-m", "two")
    for name in ("MY.PEM", "secrets/plain.txt", "credentials/aws.txt"):
        (checkout / name).write_text("hunter2\n")
    text = code_difference(checkout)
    assert "hunter2" not in text and "before" not in text
    assert all(f"# {name}: " in text for name in ("MY.PEM", "secrets/plain.txt", "credentials/aws.txt"))


def test_no_more_new_files_are_read_than_are_kept(checkout: Path) -> None:
    for number in range(9):
        (checkout / f"data{number}").write_text("x\n" * 50)
    text = code_difference(checkout, limit=300)
    assert len(text) < 450 and "+++ b/data0" in text and "data8" not in text
    assert text.endswith("more new files were not looked at\n")
