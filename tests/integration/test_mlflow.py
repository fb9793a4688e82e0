"""Tracking: one run per stage whatever happens to its processes, and no server can hurt training."""

import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from callbacks.checkpoint_files import newest_complete
from callbacks.config import CallbackConfig, TrackingConfig
from callbacks.metrics_file import MetricsFile, cut_after
from callbacks.mlflow_logger import MLflowLogger
from callbacks.mlflow_registry import register_model
from callbacks.mlflow_run import About, MLflowRun, forget
from datamodules.latent_format import LatentIndex
from datamodules.shards import ShardEntry, ShardIndex
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.run_directory import RunDirectory
from pipelines.stages.train import note_changes
from pipelines.tracking import lineage, sync_tracking, track_outcome
from streamchar.errors import InputError
from streamchar.evaluation.report import Report
from tests.fake_stage import FakeModule, train


class Broken(FakeModule):
    def training_step(self, batch, _):
        raise RuntimeError("broken")


class Recording:
    """A tracker that notes everything, and fails while ``down``."""

    def __init__(self, down=False):
        self.down, self.rows, self.said, self.opened = down, [], [], threading.Event()

    def open(self):
        self.said.append("open")
        self.opened.set()
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


def logging_to(tracker, folder):
    """The two loggers of a stage, begun."""
    mirror = MetricsFile(folder / "metrics.jsonl")
    logger = MLflowLogger(tracker, mirror.path, finish_s=20)
    logger.begin()
    return [mirror, logger]


def log_steps(loggers, steps):
    for step in steps:
        for logger in loggers:
            logger.log_metrics({"train/loss": float(step)}, step)


def finish(loggers):
    for logger in loggers:
        logger.finish("FINISHED")


def test_rows_files_and_tags_all_arrive(tmp_path):
    tracker = Recording()
    loggers = logging_to(tracker, tmp_path)
    (tmp_path / "a.mp4").touch()
    log_steps(loggers, range(250))
    loggers[1].log_file(tmp_path / "a.mp4", "samples")
    loggers[1].tag("checkpoint", "x")
    finish(loggers)
    assert [row["step"] for row in tracker.rows] == list(range(250))
    assert tracker.said == ["open", "file a.mp4 samples", "tag checkpoint=x", "FINISHED"]


def test_server_that_is_down_costs_one_warning(tmp_path, caplog):
    loggers = logging_to(Recording(down=True), tmp_path)
    log_steps(loggers, range(100))
    finish(loggers)
    assert caplog.text.count("MLflow tracking fails") == 1 and not loggers[1].in_time


class Half(Recording):
    """A tracker whose store of artefacts is gone, and whose database is busy ``busy`` times when the run ends."""

    busy = 0

    def send_file(self, path, folder):
        raise PermissionError("/old/root")

    def close(self, status):
        self.busy -= 1
        if self.busy >= 0:
            raise RuntimeError("database is locked")
        super().close(status)


def test_files_that_do_not_arrive_keep_neither_rows_nor_the_end_back(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("callbacks.mlflow_logger.LAST_S", 0.0)
    tracker = Half()
    loggers = logging_to(tracker, tmp_path)
    (tmp_path / "a.mp4").touch()  # there before the thread looks: one that is missing counts as sent
    loggers[1].log_file(tmp_path / "a.mp4")
    log_steps(loggers, range(5))
    finish(loggers)
    assert [row["step"] for row in tracker.rows] == list(range(5)) and tracker.said[-1] == "FINISHED"
    assert not loggers[1].in_time and caplog.text.count("MLflow tracking fails (PermissionError: /old/root)") == 1


def test_a_database_that_is_busy_at_the_end_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr("callbacks.mlflow_logger.LAST_S", 0.0)
    for busy, arrives in ((2, True), (3, False)):
        tracker = Half()
        tracker.busy = busy
        loggers = logging_to(tracker, tmp_path / str(busy))
        log_steps(loggers, range(3))
        finish(loggers)
        assert loggers[1].in_time is arrives and (tracker.said[-1] == "FINISHED") is arrives


def test_server_that_comes_back_gets_everything(tmp_path, monkeypatch):
    monkeypatch.setattr("callbacks.mlflow_logger.RETRY_S", 0.05)
    tracker = Recording(down=True)
    loggers = logging_to(tracker, tmp_path)
    log_steps(loggers, range(10))
    assert tracker.opened.wait(20)
    tracker.down = False
    finish(loggers)
    assert [row["step"] for row in tracker.rows] == list(range(10)) and tracker.said[-1] == "FINISHED"


def test_a_process_that_dies_unsent_leaves_its_rows_to_the_next(tmp_path):
    mirror = MetricsFile(tmp_path / "metrics.jsonl")
    log_steps([mirror], range(5))  # never sent: the process was killed
    mirror.flush()
    cut_after(mirror.path, 3)
    tracker = Recording()
    loggers = logging_to(tracker, tmp_path)
    log_steps(loggers, range(4, 7))
    finish(loggers)
    assert [row["step"] for row in tracker.rows] == list(range(7))


def runs_of(client):
    """All runs, the chain's before its stages'."""
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return sorted(found, key=lambda run: run.info.run_name)


def history(client, run, key="train/loss"):
    return [m.step for m in client.get_metric_history(run.info.run_id, key)]


def test_what_a_server_has_is_not_sent_twice_and_what_it_lacks_is(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    run = MLflowRun("", tmp_path, tmp_path / "c" / "s", "e", "c/s", About())
    row = {"step": 1, "time": 1.7e9, "train/loss": 1.0}
    run.open()
    run.send([row, {**row, "step": 2, "eval/loss": None}])
    run.open()
    run.send([row, {**row, "step": 2, "eval/loss": 3.0}, {**row, "step": 3, "time": 1.8e9}])
    client = mlflow.MlflowClient(run.uri)
    found = client.get_run(run.run_id)
    assert history(client, found) == [1, 2, 3] and history(client, found, "eval/loss") == [2]


def test_a_fresh_start_ends_the_run_of_a_process_that_was_killed_before_it_saved(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    runs = [MLflowRun("", tmp_path, tmp_path / "c" / "s", "e", "c/s", About()) for _ in range(2)]
    runs[0].open()
    forget(tmp_path / "c" / "s")
    runs[1].open()
    runs[1].open()
    client = mlflow.MlflowClient(runs[0].uri)
    assert [client.get_run(run.run_id).info.status for run in runs] == ["KILLED", "RUNNING"]
    assert [path.name for path in (tmp_path / "c" / "s").iterdir()] == ["mlflow_run.json"]


def test_resumed_stage_is_one_finished_run(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    train(tmp_path, 3, tracking="mlflow", callbacks={"samples_every": -1})
    train(tmp_path, 5, tracking="mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    chain, run = runs_of(client)
    assert chain.info.run_name == "run" and run.data.tags["mlflow.parentRunId"] == chain.info.run_id
    assert run.info.status == "FINISHED" and run.info.run_name == "run/teacher" and run.data.params == {"seed": "0"}
    assert history(client, run) == [1, 2, 3, 4, 5]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "samples")] == ["samples/step_00000003_s_1.mp4"]
    assert (tmp_path / "mlartifacts").is_dir() and "step_00000005" in run.data.tags["checkpoint"]
    with pytest.raises(RuntimeError, match="broken"):
        train(tmp_path, 7, tracking="mlflow", module=Broken())
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_a_database_at_another_address_has_the_run_still(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    train(tmp_path / "a", 3, tracking="mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/a/mlflow.db")
    before = [run.info.run_id for run in runs_of(client)]
    (tmp_path / "a").rename(tmp_path / "b")
    train(tmp_path / "b", 5, tracking="mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/b/mlflow.db")
    found = runs_of(client)
    assert [run.info.run_id for run in found] == before and history(client, found[1]) == [1, 2, 3, 4, 5]
    for folder in ("b/run", "b/run/teacher"):
        assert f"{tmp_path}/b/mlflow.db" in json.loads((tmp_path / folder / "mlflow_run.json").read_text())["uri"]


MAKES = """import sys
from callbacks.mlflow_run import client_of
import mlflow
print("ready", flush=True)
sys.stdin.readline()
print(client_of(sys.argv[1]).get_experiment_by_name("Default").name)
"""


@pytest.mark.slow
def test_jobs_that_begin_together_make_one_database(tmp_path):
    pytest.importorskip("mlflow")
    jobs = [subprocess.Popen([sys.executable, "-c", MAKES, f"sqlite:///{tmp_path}/new/mlflow.db"], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    assert [job.communicate("go\n")[0] for job in jobs] == ["Default\n"] * 3


def test_stages_that_no_server_saw_are_sent_later(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    train(tmp_path, 3, tracking="mlflow", uri="http://127.0.0.1:9", callbacks={"samples_every": -1})
    train(tmp_path, 5, tracking="mlflow", uri="http://127.0.0.1:9")
    cfg = compose(parse(["stage=sync-tracking", "preset=tiny", f"root={tmp_path}", "name=run", "tracking.kind=mlflow"]))
    for _ in range(2):
        assert sync_tracking(cfg) == ["teacher: sent, KILLED"]  # no stage's process has marked it complete
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    _, run = runs_of(client)
    assert history(client, run) == [1, 2, 3, 4, 5] and run.data.params == {"seed": "0"}
    assert [f.path for f in client.list_artifacts(run.info.run_id, "samples")] == ["samples/step_00000003_s_1.mp4"]
    (tmp_path / "run/teacher/complete.json").write_text("{}")
    assert sync_tracking(cfg) == ["teacher: sent, FINISHED"]
    with pytest.raises(InputError, match="could not be sent"):
        sync_tracking(compose(parse(["stage=sync-tracking", "preset=tiny", f"root={tmp_path}", "name=run",
                                     "tracking.kind=mlflow", "tracking.uri=http://127.0.0.1:9"])))


def test_a_changed_configuration_is_kept_as_a_difference(tmp_path):
    train(tmp_path, 2)
    folder = tmp_path / "run/teacher"
    note_changes(folder, newest_complete(folder / "checkpoints"), "seed: 0\n", {})
    assert not list(folder.glob("config_diff*"))
    note_changes(folder, newest_complete(folder / "checkpoints"), "seed: 1\n", {})
    assert (folder / "config_diff_00000002.txt").read_text().splitlines()[-2:] == ["-seed: 0", "+seed: 1"]


def test_a_student_names_its_teacher(tmp_path):
    train(tmp_path, 2, tracking="off")
    run = RunDirectory(tmp_path, "run")
    (run.stage("teacher") / "mlflow_run.json").write_text('{"run_id": "abc"}')
    tags = lineage(run, "dmd")
    assert tags["stage"] == "dmd" and tags["made_from.teacher.run"] == "abc"
    assert "step_00000002 sha256 " in tags["made_from.teacher"] and set(lineage(run, "teacher")) == {"stage"}


def test_an_exported_model_is_found_by_its_stage(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    (tmp_path / "out").mkdir()
    for data, version in ((b"first", "1"), (b"second", "2")):
        (tmp_path / "out/model.safetensors").write_bytes(data)
        assert register_model("", tmp_path, "streamchar-run", "rollout", tmp_path / "out", tmp_path) == version
    found = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_model_version_by_alias(
        "streamchar-run", "rollout")
    assert found.version in (2, "2") and found.source == (tmp_path / "out").as_uri()
    assert found.tags == {"stage": "rollout", "sha256": hashlib.sha256(b"second").hexdigest()}


def test_unreachable_server_leaves_training_alone(tmp_path, caplog):
    complete, _ = train(tmp_path, 3, tracking="mlflow", uri="http://127.0.0.1:9")
    assert complete
    assert caplog.text.count("MLflow tracking fails") == 1
    assert (tmp_path / "run" / "teacher" / "metrics.jsonl").read_text().count("\n") == 4


@pytest.fixture
def made(tmp_path):
    """A run that has prepared recordings, encoded them and evaluated a model."""
    run = RunDirectory(tmp_path, "run")
    shards = run.stage("prepare") / "shards"
    shards.mkdir(parents=True)
    ShardIndex({"a.tar": ShardEntry("a.tar", 4, "x", 1800.0, 2_000_000, "r")}).save(shards / "shards.json")
    (run.stage("prepare") / "report.json").write_text(json.dumps(
        {"recordings": 4, "recordings_used": 3, "clips": 4, "speakers": 2, "rejected": 6,
         "reasons": {"no face": 5, "cut": 1}}))
    index = LatentIndex("v1", "a1", 25.0, 33, 25.0, 16000, 8, None, [0], 48,
                        [{"file": "l.tar", "clips": 3, "seconds": 900.0, "bytes": 3_000_000},
                         {"file": "m.tar", "clips": 5, "seconds": 900.0, "bytes": 9_000, "recorded": False}],
                        [{"key": k, "reason": f"cannot decode: byte {k}", "file": "a.tar"} for k in "xy"])
    for split in ("train", "val"):
        folder = run.stage("encode") / "latents" / split
        folder.mkdir(parents=True)
        (folder / "shards.json").write_bytes(index.to_json())
    evaluated(run, 40.0)
    return run


def evaluated(run, errors):
    report = Report("Evaluation", {"steps": 4, "new sentences": 2})
    report.add("words", "errors, all", {"student": errors, "teacher": float("nan")}, unit="%")
    report.save(run.stage("evaluate"))


def track(run, stage, *more):
    cfg = compose(parse([f"stage={stage}", "preset=tiny", "recipe=videos", "input=x", f"root={run.root}",
                         f"name={run.name}", "tracking.kind=mlflow", *more]))
    track_outcome(cfg, run, 12.0)
    return cfg


def test_stages_that_do_not_train_have_runs_in_the_chain(made):
    mlflow = pytest.importorskip("mlflow")
    for stage in ("prepare", "encode", "evaluate"):
        track(made, stage)
    evaluated(made, 30.0)
    track(made, "evaluate")  # again: the same run goes on
    client = mlflow.MlflowClient(f"sqlite:///{made.root}/mlflow.db")
    chain, encode, evaluate, prepare = runs_of(client)
    assert [r.info.run_name for r in (encode, evaluate, prepare)] == ["run/encode", "run/evaluate", "run/prepare"]
    for run in (encode, evaluate, prepare):
        assert run.info.status == "FINISHED" and run.data.tags["mlflow.parentRunId"] == chain.info.run_id
        assert run.data.metrics["perf/stage_s"] == 12.0 and run.data.tags["preset"] == "tiny"
    assert prepare.data.metrics | {
        "data/clips": 4.0, "data/hours": 0.5, "data/megabytes": 2.0, "data/used_share": 0.75, "data/put_aside": 6.0,
        "data/put_aside_share": 0.6, "put_aside/no_face": 5.0, "put_aside/cut": 1.0} == prepare.data.metrics
    assert encode.data.metrics | {
        "data/train_clips": 8.0, "data/val_hours": 0.5, "data/train_megabytes": 3.009,
        "data/train_put_aside": 2.0, "data/train_put_aside_share": 0.4,  # of what was recorded
        "put_aside/train_cannot_decode": 2.0} == encode.data.metrics
    assert encode.data.tags["codec.audio"].endswith(" a1") and encode.data.tags["made_from.prepare.run"]
    figures = client.get_metric_history(evaluate.info.run_id, "eval/words/errors_all/student")
    assert [(m.step, m.value) for m in figures] == [(1, 40.0), (2, 30.0)]
    assert evaluate.data.tags["evaluated.new_sentences"] == "2" and evaluate.data.tags["page"].endswith("index.html")
    kept = {f.path for f in client.list_artifacts(evaluate.info.run_id)}
    assert {"index.html", "table.txt", "report.json"} <= kept


def test_no_server_and_no_result_can_fail_a_stage_that_is_complete(made, caplog):
    pytest.importorskip("mlflow")
    cfg = track(made, "encode", "tracking.uri=http://127.0.0.1:9", "tracking.finish_s=20")
    assert caplog.text.count("MLflow tracking fails") == 1
    assert sync_tracking(replace(cfg, callbacks=CallbackConfig(TrackingConfig("mlflow")))) == ["encode: sent, KILLED"]
    (made.stage("evaluate") / "report.json").write_text("{")
    track(made, "evaluate", "tracking.kind=off")
    assert "evaluate is complete, but what it has made is not logged" in caplog.text
