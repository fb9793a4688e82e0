"""Tracking: one run per stage whatever happens to its processes, and no server can hurt training."""

import time

import pytest

from callbacks.mlflow_logger import MLflowLogger
from tests.fake_stage import FakeModule, train


class Broken(FakeModule):
    def training_step(self, batch, _):
        raise RuntimeError("broken")


class Recording:
    """A tracker that notes everything, and fails while ``down``."""

    def __init__(self, down=False):
        self.down, self.rows, self.said = down, [], []

    def open(self):
        self.said.append("open")
        if self.down:
            raise ConnectionError("refused")

    def send(self, rows):
        self.rows += rows

    def send_file(self, path, folder):
        self.said.append(f"file {path.name} {folder}")

    def tag(self, key, value):
        self.said.append(f"tag {key}={value}")

    def close(self, status):
        self.said.append(status)


def test_rows_files_and_tags_arrive_in_order(tmp_path):
    tracker = Recording()
    logger = MLflowLogger(tracker, finish_s=20)
    logger.begin()
    (tmp_path / "a.mp4").touch()
    for step in range(250):
        logger.log_metrics({"train/loss": float(step)}, step)
    logger.log_file(tmp_path / "a.mp4", "samples")
    logger.tag("checkpoint", "x")
    logger.finish("FINISHED")
    assert [step for step, _, _ in tracker.rows] == list(range(250))
    assert tracker.said == ["open", "file a.mp4 samples", "tag checkpoint=x", "FINISHED"]


def test_server_that_is_down_costs_one_warning_and_no_time(caplog):
    logger = MLflowLogger(Recording(down=True), finish_s=20)
    logger.begin()
    began = time.monotonic()
    for step in range(1000):
        logger.log_metrics({"train/loss": 1.0}, step)
    logger.finish("FINISHED")
    assert time.monotonic() - began < 20
    assert caplog.text.count("MLflow tracking fails") == 1


def test_server_that_comes_back_gets_everything(monkeypatch):
    monkeypatch.setattr("callbacks.mlflow_logger.RETRY_S", 0.05)
    tracker = Recording(down=True)
    logger = MLflowLogger(tracker, finish_s=20)
    logger.begin()
    for step in range(10):
        logger.log_metrics({"train/loss": 1.0}, step)
    while "open" not in tracker.said:
        time.sleep(0.01)
    tracker.down = False
    logger.finish("FINISHED")
    assert len(tracker.rows) == 10 and tracker.said[-1] == "FINISHED"


def test_resumed_stage_is_one_finished_run(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    train(tmp_path, 3, tracking="mlflow", callbacks={"samples_every": -1})
    train(tmp_path, 5, tracking="mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len(runs) == 1
    run = runs[0]
    assert run.info.status == "FINISHED" and run.info.run_name == "run/teacher" and run.data.params == {"seed": "0"}
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == [1, 2, 3, 4, 5]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "samples")] == ["samples/step_00000003_s_1.mp4"]
    assert (tmp_path / "mlartifacts").is_dir() and "step_00000005" in run.data.tags["checkpoint"]
    with pytest.raises(RuntimeError, match="broken"):
        train(tmp_path, 7, tracking="mlflow", module=Broken())
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_unreachable_server_leaves_training_alone(tmp_path, caplog):
    complete, _ = train(tmp_path, 3, tracking="mlflow", uri="http://127.0.0.1:9")
    assert complete
    assert caplog.text.count("MLflow tracking fails") == 1
    assert (tmp_path / "run" / "teacher" / "metrics.jsonl").read_text().count("\n") == 4
