"""A real MLflow server on loopback that goes away and comes back while a stage trains."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.fake_stage import FakeModule, train

pytestmark = pytest.mark.slow


class Server:
    """``mlflow server`` over one folder, always at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
             "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1", "--port",
             str(self.port), "--workers", "1"], start_new_session=True)
        deadline = time.monotonic() + 180
        while not self._up():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.1)

    def _up(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(60)
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path / "server")
    found.folder.mkdir()
    yield found
    found.stop()


class Watched(FakeModule):
    """Stops the server in one step and starts it again in a later one."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    def training_step(self, batch, number):
        super().training_step(batch, number)
        if self.iteration == 10:
            self.server.stop()
        if self.iteration == 30:
            self.server.start()


def test_a_server_that_goes_away_and_comes_back_loses_nothing(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("callbacks.mlflow_logger.RETRY_S", 0.5)
    server.start()
    complete, _ = train(tmp_path / "root", 40, tracking="mlflow", uri=server.uri, module=Watched(server))
    assert complete
    client = mlflow.MlflowClient(server.uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], order_by=["attribute.run_name"])
    assert [(run.info.run_name, run.info.status) for run in runs] == [("run", "FINISHED"), ("run/teacher", "FINISHED")]
    steps = [m.step for m in client.get_metric_history(runs[1].info.run_id, "train/loss")]
    assert steps == list(range(1, 41))
