"""The evaluation's three faces: JSON without nan, a table, a page that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamchar.errors import InputError
from streamchar.evaluation.report import COLUMNS, ClipRow, Report


def report() -> Report:
    out = Report("Evaluation of <run>", {"steps": 4})
    out.add("sync", "lag", {"real": 0.0, "student": float("nan"), "teacher": None, "baseline": 4.0}, unit="frames",
            baseline="another clip's sound")
    out.add("words", "word errors, all", {"real": 7.123, "baseline": 81.0}, unit="%")
    out.curves["d over t"] = {"student": [(0.0, 1.0), (1.0, float("nan")), (2.0, 3.0)]}
    out.clips.append(ClipRow("a", "say <b>", {"student": "say & hear"}, {"student": {"lag": 1.0}},
                             {"student": "videos/a-student.mp4"}))
    out.notes.append("few clips")
    return out


def test_json_has_no_nan_and_flat_metric_names(tmp_path: Path) -> None:
    report().save(tmp_path)
    text = (tmp_path / "report.json").read_text()
    saved = json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(AssertionError(name)))
    assert saved["metrics"] == {"eval/sync/lag/real": 0.0, "eval/sync/lag/baseline": 4.0,
                                "eval/words/word_errors_all/real": 7.123,
                                "eval/words/word_errors_all/baseline": 81.0}
    assert saved["rows"][0]["values"] == {"real": 0.0, "student": None, "baseline": 4.0}


def test_table_tells_no_signal_from_not_measured(tmp_path: Path) -> None:
    report().save(tmp_path)
    table = (tmp_path / "table.txt").read_text()
    assert "no signal" in table and "\u2013" in table and "7.1 %" in table and "another clip's sound" in table
    assert "teacher" not in table  # a column without a value is not shown


def test_page_is_escaped_and_whole(tmp_path: Path) -> None:
    report().save(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "say &lt;b&gt;" in page and "say &amp; hear" in page and "Evaluation of &lt;run&gt;" in page
    assert 'src="videos/a-student.mp4"' in page and "<polyline" in page and "nan" not in page.lower()
    assert "http" not in page and "<script" not in page


def test_a_saved_report_is_read_as_it_was(tmp_path: Path) -> None:
    report().save(tmp_path)
    again = Report.load(tmp_path)
    assert again.to_json() == report().to_json()
    cells = [[row.text(c) for row in r.rows for c in COLUMNS] for r in (again, report())]
    assert cells[0] == cells[1]
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match="stage=evaluate writes it anew"):
        Report.load(tmp_path)
