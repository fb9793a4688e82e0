"""metrics.jsonl: one object per step, cut where training resumes."""

import json

from callbacks.metrics_file import MetricsFile, cut_after, read_rows


def test_one_row_per_step_whoever_logs(tmp_path):
    path = tmp_path / "metrics.jsonl"
    logger = MetricsFile(path)
    logger.log_metrics({"train/loss": 1.5, "epoch": 0}, 1)
    logger.log_metrics({"eval/loss": 2.0}, 1)
    assert not path.exists()
    logger.log_metrics({"train/loss": float("nan")}, 2)
    logger.finish("FINISHED")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k != "time"} for row in rows] == [
        {"step": 1, "eval/loss": 2.0, "train/loss": 1.5}, {"step": 2, "train/loss": None}]
    assert rows[0]["time"] > 1.7e9


def test_the_disk_is_waited_for_once_for_many_rows(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr("callbacks.metrics_file.os.fsync", waited.append)
    logger = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        logger.log_metrics({"train/loss": 1.0}, step)
    assert [row["step"] for row in read_rows(logger.path)] == [1, 2] and not waited
    logger.sync()
    logger.sync()
    assert len(waited) == 1
    logger.finish("FINISHED")
    assert len(waited) == 2 and [row["step"] for row in read_rows(logger.path)] == [1, 2, 3]


def test_cut_after_drops_later_rows_and_half_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "trai')
    cut_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    cut_after(path, None)
    assert path.read_text() == ""
    cut_after(tmp_path / "none", 3)


def test_full_disk_costs_one_warning(tmp_path, caplog):
    logger = MetricsFile(tmp_path / "file" / "metrics.jsonl")
    (tmp_path / "file").write_text("in the way")
    for step in (1, 2, 3):
        logger.log_metrics({"train/loss": 1.0}, step)
    logger.finish("FINISHED")
    assert caplog.text.count("cannot be written") == 1
    assert read_rows(logger.path.with_name("none")) == []
