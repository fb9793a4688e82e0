"""One MLflow run per stage folder: made once, reopened by every later process, on local sqlite by default.

The stages of one chain are children of a run of its own, called by the chain's name.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callbacks.redaction import redact

log = logging.getLogger(__name__)

IDENTITY = "mlflow_run.json"
FORGOTTEN = "mlflow_run.before.json"
SQLITE = "sqlite:///"


@dataclass
class About:
    """What a run is told of besides its metrics.

    params: science settings, written once when the run is made. tags: what it was made from.
    """

    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class MLflowRun:
    """The stage's run on a tracking server.

    Args:
        uri: tracking URI; empty: ``sqlite:///ROOT/mlflow.db`` with artefacts in ``ROOT/mlartifacts``.
        root: folder of all runs.
        folder: the stage's folder, where the run's id is kept; the chain's is kept in the folder above.
        experiment, name: what it is called, ``CHAIN/STAGE``.
        about: params and tags.
    """

    def __init__(self, uri: str, root: Path, folder: Path, experiment: str, name: str, about: About) -> None:
        self.root, self.folder, self.experiment, self.name = root.absolute(), folder, experiment, name
        self.local = not uri
        self.uri = tracking_uri(uri, root)
        self.about = about
        self._arrived: dict[str, int] = {}
        self.run_id = ""
        self._client: Any = None

    def open(self) -> None:
        """Reopen the folder's run, or make one, and set it RUNNING; params that it has already stay as they are.

        Rows are sent in the order of their steps, so the latest step of a metric says what has arrived of it. Files
        are for :meth:`send_file`: a store of artefacts that is gone must not keep metrics from the server.
        """
        client = self._client = client_of(self.uri)
        chain = self._known(self.folder.parent) or self._make(self.folder.parent, self.name.split("/")[0], {})
        self._end_forgotten()  # before a run is made, for which another fresh start might forget this one
        self.run_id = self._known(self.folder) or self._make(self.folder, self.name, {"mlflow.parentRunId": chain})
        client.update_run(self.run_id, status="RUNNING")
        data = client.get_run(self.run_id).data
        self._arrived = {metric.key: metric.step for metric in data._metric_objs}
        self._tell(data.params)

    def open_parent(self, plan: Path) -> None:
        """Reopen or make a run that holds no stage, but is above others: those whose folder has its identity.

        ``plan`` is kept with it.
        """
        self._client = client_of(self.uri)
        self.run_id = self._known(self.folder) or self._make(self.folder, self.name, {})
        self._tell(self._client.get_run(self.run_id).data.params)
        self.send_file(plan, "")

    def _tell(self, known: dict[str, Any]) -> None:
        client = self._client
        for key, value in self.about.params.items():
            if key not in known:
                client.log_param(self.run_id, key, value)
        for key, value in self.about.tags.items():
            client.set_tag(self.run_id, key, value)

    def _end_forgotten(self) -> None:
        """A process that was killed before its first checkpoint has left a run that nobody goes on with."""
        run_id = self._known(self.folder, FORGOTTEN)
        if run_id and self._client.get_run(run_id).info.status == "RUNNING":
            self._client.set_terminated(run_id, "KILLED")
        (self.folder / FORGOTTEN).unlink(missing_ok=True)

    def _known(self, folder: Path, file: str = IDENTITY) -> str:
        """The id kept in the folder's ``file``, where the server has that run; else nothing.

        The address does not matter: a server that has moved, or a local database that is served now, has it still.
        """
        from mlflow.exceptions import MlflowException

        identity = read_identity(folder, file)
        if not identity.get("run_id"):
            return ""
        try:
            run = self._client.get_run(identity["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""
        if run.info.lifecycle_stage != "active":
            return ""
        if file == IDENTITY and identity.get("uri") != redact(self.uri):
            self._keep(folder, identity["run_id"])
        return str(identity["run_id"])

    def _make(self, folder: Path, name: str, tags: dict[str, str]) -> str:
        run_id = str(self._client.create_run(self._experiment_id(), run_name=name, tags=tags).info.run_id)
        self._keep(folder, run_id)
        return run_id

    def _keep(self, folder: Path, run_id: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{IDENTITY}.part"
        part.write_text(json.dumps({"uri": redact(self.uri), "run_id": run_id, "experiment": self.experiment}) + "\n")
        part.replace(folder / IDENTITY)

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
        """End the run, and with it the chain's, which has the status of its latest stage."""
        self._client.set_terminated(self.run_id, status)
        if chain := self._known(self.folder.parent):
            self._client.set_terminated(chain, status)


def read_identity(folder: Path, file: str = IDENTITY) -> dict[str, Any]:
    """Where a folder's run is: ``uri``, ``run_id``, ``experiment``; empty where it has none."""
    try:
        identity = json.loads((folder / file).read_text())
    except (OSError, ValueError):
        return {}
    return identity if isinstance(identity, dict) else {}


def forget(folder: Path) -> None:
    """The stage starts afresh: its next run is a new one, which ends the one before if that still counts as running."""
    if (folder / IDENTITY).exists():
        (folder / IDENTITY).replace(folder / FORGOTTEN)


def tracking_uri(uri: str, root: Path) -> str:
    """``uri``, or the local default below the folder of all runs."""
    return uri or f"{SQLITE}{root.absolute() / 'mlflow.db'}"


def client_of(uri: str) -> Any:
    """A client that gives up on a dead server in seconds instead of minutes; importing mlflow takes some itself."""
    for key, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "15"),
                       ("MLFLOW_DISABLE_TELEMETRY", "true"), ("GIT_PYTHON_REFRESH", "quiet")):
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    # After the import, which sets up loggers of its own.
    for name in ("alembic", "mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It prints a traceback for every statement that a full disk or a busy database refuses; the error itself is told.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    client = MlflowClient(tracking_uri=uri)
    if uri.startswith(SQLITE):
        with _alone(Path(uri.removeprefix(SQLITE))):
            client.get_experiment_by_name("Default")  # makes the tables
    return client


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    """One process at a time makes a database: members of a job array that begin together would spoil each other's."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("a") as file:
        try:
            fcntl.lockf(file.fileno(), fcntl.LOCK_EX)
        except OSError as error:
            log.info("%s cannot be locked (%s)", file.name, error.strerror)
        yield
