"""Exported models in MLflow's registry: a version points to the folder with its hash, an alias names its stage."""

from __future__ import annotations

import hashlib
from pathlib import Path

from callbacks.mlflow_run import client_of, read_identity, tracking_uri


def register_model(uri: str, root: Path, name: str, stage: str, folder: Path, stage_folder: Path) -> str:
    """Register an exported folder as the newest version of ``name``, and let the alias ``stage`` point to it.

    Args:
        uri, root: as of :class:`callbacks.mlflow_run.MLflowRun`.
        name: of the registered model.
        stage: whose weights they are.
        folder: the exported model.
        stage_folder: where the stage's MLflow run is noted.

    Returns:
        The version.
    """
    from mlflow.exceptions import MlflowException

    client = client_of(tracking_uri(uri, root))
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    version = client.create_model_version(
        name, source=folder.absolute().as_uri(), run_id=read_identity(stage_folder).get("run_id"),
        tags={"stage": stage, "sha256": digest})
    client.set_registered_model_alias(name, stage, version.version)
    return str(version.version)
