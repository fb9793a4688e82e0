"""One MLflow run per stage folder: made once, reopened by every later process, on local sqlite by default."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from callbacks.redaction import redact

log = logging.getLogger(__name__)

IDENTITY = "mlflow_run.json"


class MLflowRun:
    """The stage's run on a tracking server.

    Args:
        uri: tracking URI; empty: ``sqlite:///ROOT/mlflow.db`` with artefacts in ``ROOT/mlartifacts``.
        root: folder of all runs.
        folder: the stage's folder, where the run's id is kept.
        experiment, name: what it is called.
        params: science settings, written once when the run is made.
        files: configuration files kept as artefacts, when they exist.
    """

    def __init__(self, uri: str, root: Path, folder: Path, experiment: str, name: str,
                 params: dict[str, Any] | None = None, files: list[Path] | None = None) -> None:
        self.root, self.folder, self.experiment, self.name = root.absolute(), folder, experiment, name
        self.local = not uri
        self.uri = uri or f"sqlite:///{self.root / 'mlflow.db'}"
        self._arrived: dict[str, int] = {}
        self.params, self.files = params or {}, files or []
        self.run_id = ""
        self._client: Any = None

    def open(self) -> None:
        """Reopen the folder's run, or make one, and set it RUNNING; params that it has already stay as they are.

        Rows are sent in the order of their steps, so the latest step of a metric says what has arrived of it.
        """
        client = self._client = _client(self.uri)
        self.run_id = self._known() or self._make()
        client.update_run(self.run_id, status="RUNNING")
        data = client.get_run(self.run_id).data
        have = data.params
        self._arrived = {metric.key: metric.step for metric in data._metric_objs}
        for key, value in self.params.items():
            if key not in have:
                client.log_param(self.run_id, key, value)
        for path in self.files:
            if path.exists():
                client.log_artifact(self.run_id, str(path))

    def _known(self) -> str:
        """The id kept in the folder, where the server still has that run; else nothing."""
        from mlflow.exceptions import MlflowException

        try:
            identity = json.loads((self.folder / IDENTITY).read_text())
        except (OSError, ValueError):
            return ""
        if identity.get("uri") != redact(self.uri):
            return ""
        try:
            run = self._client.get_run(identity["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""
        return str(identity["run_id"]) if run.info.lifecycle_stage == "active" else ""

    def _make(self) -> str:
        run = self._client.create_run(self._experiment_id(), run_name=self.name)
        run_id = str(run.info.run_id)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{IDENTITY}.part"
        part.write_text(json.dumps({"uri": redact(self.uri), "run_id": run_id, "experiment": self.experiment}) + "\n")
        part.replace(self.folder / IDENTITY)
        return run_id

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            artefacts = (self.root / "mlartifacts").as_uri() if self.local else None
            try:
                return str(self._client.create_experiment(self.experiment, artifact_location=artefacts))
            except Exception:  # another run has just made it
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def send(self, rows: list[dict[str, Any]]) -> None:
        """Send rows of ``metrics.jsonl`` that have not arrived; values that were not finite are null there and are left
        out, for not every store takes them."""
        from mlflow.entities import Metric

        metrics = [Metric(key, float(value), int(row["time"] * 1000), row["step"]) for row in rows
                   for key, value in row.items() if key not in ("step", "time") and value is not None
                   and row["step"] > self._arrived.get(key, -1)]
        for i in range(0, len(metrics), 1000):  # the most that one request may hold
            self._client.log_batch(self.run_id, metrics=metrics[i:i + 1000])
        self._arrived |= {metric.key: metric.step for metric in metrics}

    def send_file(self, path: Path, folder: str) -> None:
        """Keep a copy of ``path`` among the run's artefacts."""
        self._client.log_artifact(self.run_id, str(path), folder or None)

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""
        self._client.set_tag(self.run_id, key, value)

    def close(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id, status)


def forget(folder: Path) -> None:
    """The stage starts afresh: its next run is a new one."""
    (folder / IDENTITY).unlink(missing_ok=True)


def _client(uri: str) -> Any:
    """A client that gives up on a dead server in seconds instead of minutes; importing mlflow takes some itself."""
    for key, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "15"),
                       ("MLFLOW_DISABLE_TELEMETRY", "true"), ("GIT_PYTHON_REFRESH", "quiet")):
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    # After the import, which sets up loggers of its own.
    for name in ("alembic", "mlflow", "mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)
