"""Stage report: the page says what the runs' folders hold, where they differ, and what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipelines import run as run_module
from pipelines.completion import set_mark
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.reporting.curves import thinned
from pipelines.run_directory import RunDirectory
from streamchar.evaluation.report import ClipRow, Report

FILM = b"\0\0\0\x18ftypmp42" + bytes(3000)


def fabricate(root: Path, name: str, losses: list[float], *settings: str) -> RunDirectory:
    """A run whose teacher logged ``losses``."""
    cfg = compose(parse(["stage=teacher", "preset=tiny", f"root={root}", f"name={name}", *settings]))
    run = RunDirectory.of(cfg)
    folder = run.open("teacher", cfg, ["run.py"])
    rows = [{"step": i + 1, "time": 1.0, "train/loss": loss, "perf/step_s": 0.5} for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    set_mark(run, "teacher", cfg, 75.0)
    return run


def evaluate(run: RunDirectory, errors: float, real: float = 9.0) -> None:
    """Give a run an evaluation with one clip."""
    cfg = compose(parse(["stage=evaluate", "preset=tiny", f"name={run.name}"]))
    folder = run.open("evaluate", cfg, ["run.py"])
    set_mark(run, "evaluate", cfg, 5.0)
    report = Report(f"Evaluation of {run.name}", {"clips": 1})
    report.add("words", "word <errors>", {"real": real, "student": errors}, unit="%")
    report.curves["drift"] = {"student": [(0.0, 0.0), (1.0, errors)]}
    report.clips.append(ClipRow("k1", "say & hear", {"student": f"heard by {run.name}"}, {},
                                {"real": "videos/k1-real.mp4", "student": "videos/k1-student.mp4",
                                 "noise": "../../../outside.mp4"}))
    report.notes.append("few clips")
    report.save(folder)
    (folder / "videos").mkdir()
    for column in ("real", "student"):
        (folder / "videos" / f"k1-{column}.mp4").write_bytes(FILM)


def told(root: Path, *arguments: str, runs: str = "a,b") -> str:
    assert run_module.main(["stage=report", f"runs={runs}", f"root={root}", *arguments]) == 0
    return (root / "report.html").read_text()


def test_two_runs_on_one_page(tmp_path: Path) -> None:
    first = fabricate(tmp_path, "a", [3.0, 2.0, 1.5])
    second = fabricate(tmp_path, "b", [3.0, 2.5], "teacher.optimizer.lr=0.005", "init_speech=puppet")
    evaluate(first, 41.0)
    evaluate(second, 17.0)
    page = told(tmp_path)
    assert "Runs a, b" in page and "complete (1 min 15 s), 3 of 4 steps" in page and "2 of 4 steps" in page
    assert re.search(r"<td>stages.teacher.optimizer.lr</td><td>[\d.]+</td><td>0.005</td><td>teacher</td>", page)
    assert page.count("stages.teacher") == 1  # nothing else differs
    assert re.search(r"begins from</t[hd]><td>\u2013</td><td>init_speech=puppet</td>", page)
    assert "41.0 %" in page and "17.0 %" in page and "word &lt;errors&gt;" in page and "few clips" in page
    assert page.count("9.0 %") == 1 and "equal in 2 runs" in page  # the same recordings
    assert "<h3>train/loss</h3>" in page and "a 1.5<" in page and "b 2.5<" in page and "student: drift" in page
    assert "heard by a" in page and "heard by b" in page and "say &amp; hear" in page
    assert page.count("data:video/mp4;base64,") == 3  # the recording once, each student's
    assert "Not everything" not in page and "no figures" not in page
    for fetched in ("http:", "https:", "<script", "<link", "url("):
        assert fetched not in page


def test_what_is_missing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(fabricate(tmp_path, "a", [3.0, 2.0]), 41.0)
    second = fabricate(tmp_path, "b", [])
    (second.stage("teacher") / "complete.json").unlink()
    (second.stage("teacher") / "provenance.json").write_text("{")
    with caplog.at_level("INFO"):
        page = told(tmp_path)
    for lack in ("teacher: not complete", "teacher: no figures", "teacher: provenance.json is missing",
                 "evaluate: not run"):
        assert f"<li>{lack}" in page and f"b lacks {lack}" in caplog.text
    assert "<b>a</b><ul>" not in page
    (tmp_path / "a/evaluate/report.json").write_text("[")
    page = told(tmp_path)
    assert "cannot be read as an evaluation" in page and "None of these runs was evaluated" in page


def test_what_does_not_fit_is_linked_from_the_page(tmp_path: Path) -> None:
    evaluate(fabricate(tmp_path, "a", [3.0]), 41.0)
    page = told(tmp_path, "report.embed_mb=0.001", runs="a")
    named = re.findall(r'src="([^"]+)"', page)
    assert len(named) == 2 and all((tmp_path / name).read_bytes() == FILM for name in named)
    assert "outside" not in page and "2 more are linked" in page
    assert run_module.main(["stage=report", "runs=a", f"root={tmp_path}", f"out={tmp_path}/deep/page.html"]) == 0
    assert "data:video" in (tmp_path / "deep/page.html").read_text()


def test_unknown_runs_are_named_with_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate(tmp_path, "alpha", [1.0])
    assert run_module.main(["stage=report", "runs=alpha,alfa,x", f"root={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert "runs=alfa:" in said and "did you mean alpha?" in said and "runs=x:" in said and "there are alpha" in said
    assert not (tmp_path / "report.html").exists()
    assert run_module.main(["stage=report", f"root={tmp_path}"]) == 2
    assert "runs=NAME,NAME" in capsys.readouterr().err


def test_long_lines_are_thinned_and_keep_their_last_value() -> None:
    line = [(float(i), float(i % 7)) for i in range(1000)]
    thin = thinned(line, 50)
    assert len(thin) == 50 and thin[-1] == line[-1] and thinned(line[:50], 50) == line[:50]
    assert sum(y for _, y in thin) / 50 == pytest.approx(3.0, abs=0.2)
