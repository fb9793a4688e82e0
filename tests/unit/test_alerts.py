"""Alerts: what is told, how often, and that neither a hook's failure nor its address gets anywhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from callbacks.alerts import Alerts
from callbacks.config import AlertConfig
from callbacks.metrics_file import MetricsFile
from callbacks.redaction import redact
from pipelines.config.compose import compose, to_yaml
from pipelines.config.errors import ConfigError
from pipelines.config.grammar import parse
from pipelines.run_directory import RunDirectory


class Hook:
    """A webhook on loopback; ``status``: its answer; ``busy``: it answers only when this is set."""

    def __init__(self) -> None:
        self.got: list[dict] = []
        self.status, self.answered, self.busy = 200, 0, threading.Event()
        self.busy.set()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                hook.busy.wait(30)
                hook.answered += 1
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/services/hunter2"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.busy.set()
    found.server.shutdown()
    found.server.server_close()


def log_rows(alerts: Alerts, *rows: dict[str, float]) -> None:
    for step, row in enumerate(rows, 1):
        alerts.log_metrics(row, step)
    alerts.flush()


def test_trouble_is_told_once_and_a_good_run_says_nothing(hook: Hook, tmp_path: Path) -> None:
    alerts = Alerts(AlertConfig(hook.url), "r", "dmd", tmp_path)
    good = {"stability/nonfinite": 0.0, "stability/spike_loss": 3.0, "perf/real_time_factor": 0.9}
    log_rows(alerts, good, good)
    alerts.finish("FINISHED")
    assert hook.got == []
    alerts = Alerts(AlertConfig(hook.url), "r", "dmd", tmp_path)
    log_rows(alerts, {"stability/nonfinite": 4.0},  # of an earlier process
             {"stability/nonfinite": 6.0}, {"stability/nonfinite": 7.0}, {"perf/real_time_factor": 1.25})
    alerts.finish("KILLED")
    assert [(m["kind"], m["step"]) for m in hook.got] == [("divergence", 2), ("throughput", 4), ("stopped", 4)]
    assert "2 updates were dropped" in hook.got[0]["text"] and "1.25 of the time" in hook.got[1]["text"]
    assert hook.got[2]["text"].startswith("r/dmd stopped at step 4")


def test_an_abort_names_its_error_and_no_secret_of_it(hook: Hook, tmp_path: Path) -> None:
    alerts = Alerts(AlertConfig(hook.url, repeat_minutes=0), "r", "teacher", tmp_path)
    log_rows(alerts, {"stability/spike_loss": 50.0}, {"stability/spike_loss": 60.0})
    try:
        raise RuntimeError("10 non-finite updates in a row; token=hunter2")
    except RuntimeError:
        alerts.finish("FAILED")
    assert [m["kind"] for m in hook.got] == ["divergence", "divergence", "failed"]
    assert "RuntimeError: 10 non-finite" in hook.got[2]["text"] and "hunter2" not in hook.got[2]["text"]


@pytest.mark.parametrize("broken", ["status", "gone", "no address"])
def test_a_hook_that_fails_costs_one_warning_without_its_address(
        hook: Hook, broken: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    hook.status = 500
    url = {"status": hook.url, "gone": "http://127.0.0.1:9/hunter2", "no address": "http://[/hunter2"}[broken]
    alerts = Alerts(AlertConfig(url, repeat_minutes=0), "r", "dmd", tmp_path)
    log_rows(alerts, *[{"perf/real_time_factor": 2.0}] * 3)
    alerts.finish("KILLED")
    assert caplog.text.count("an alert could not be posted") == 1 and "hunter2" not in caplog.text


def test_a_hook_that_hangs_does_not_hold_the_stage(hook: Hook, tmp_path: Path) -> None:
    hook.busy.clear()
    alerts = Alerts(AlertConfig(hook.url, timeout_s=0.2), "r", "dmd", tmp_path)
    log_rows(alerts, *[{"perf/real_time_factor": 2.0}] * 3)
    alerts.finish("KILLED")
    assert hook.answered == 0


def test_a_hard_kill_is_told_by_the_process_that_goes_on(hook: Hook, tmp_path: Path) -> None:
    def process(start: int | None) -> Alerts:
        alerts = Alerts(AlertConfig(hook.url), "r", "dmd", tmp_path)
        alerts.begin(start)
        return alerts

    process(None).finish("FAILED")  # before its first row: told by itself
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    killed = process(None)
    for step in (1, 2, 3):
        metrics.write(step, {"train/loss": 1.0})
        killed.write(step, {})
    goes_on = process(2)
    log_rows(goes_on, {"train/loss": 1.0})
    goes_on.finish("FINISHED")
    process(3).finish("FINISHED")
    assert [(m["kind"], m["step"]) for m in hook.got] == [("failed", 0), ("killed", 3)]
    assert hook.got[1]["text"].startswith("r/dmd killed at step 3") and "from step 2" in hook.got[1]["text"]
    assert not list(tmp_path.glob(".at_work"))


def test_the_address_is_hidden_wherever_a_run_writes(tmp_path: Path) -> None:
    given = "callbacks.alerts.url=https://hooks.site/T0/hunter2"
    cfg = compose(parse([f"root={tmp_path}", "preset=tiny", given]))
    assert cfg.callbacks.alerts.url.endswith("hunter2")
    folder = RunDirectory.of(cfg).open("teacher", cfg, ["run.py", given])
    written = "".join(path.read_text() for path in folder.iterdir())
    for text in (written, to_yaml(cfg), to_yaml(cfg.callbacks), redact(given)):
        assert "hunter2" not in text and "alerts" in text and "***" in text
    assert to_yaml(compose(parse(["preset=tiny"]))).count("***") == 0
    with pytest.raises(ConfigError) as error:
        compose(parse(["preset=tiny", "callbacks.alerts.url=hooks.site/hunter2"]))
    assert "must begin with https://" in str(error.value) and "hunter2" not in str(error.value)
