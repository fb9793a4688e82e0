"""The folder of a run, ``root/NAME/STAGE/``: a function of the run's name, never of the clock or a job's number."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pipelines.code_difference import code_difference, difference_file
from pipelines.config.compose import to_yaml
from pipelines.config.places import CHECKOUT
from pipelines.config.schema import STAGES, RunConfig
from pipelines.provenance import provenance
from streamchar.errors import InputError


@dataclass(frozen=True)
class RunDirectory:
    """Where the stages of one run write, and where they find each other's results."""

    root: Path
    name: str

    @classmethod
    def of(cls, cfg: RunConfig) -> RunDirectory:
        """The directory that a configuration names."""
        return cls(Path(cfg.root), cfg.name)

    @property
    def path(self) -> Path:
        """The run's own folder, parent of its stages."""
        return self.root / self.name

    def stage(self, stage: str) -> Path:
        """Folder of a stage; it need not exist."""
        if stage not in STAGES:
            raise ValueError(f"{stage!r} is no stage; there are {STAGES}")
        return self.path / stage

    def input(self, stage: str, what: str = "") -> Path:
        """``what`` (a path below the stage's folder) that another stage has made.

        Raises:
            InputError: if it is missing; the message names the stage that makes it and the command to run.
        """
        path = self.stage(stage) / what
        if path.exists():
            return path
        raise InputError(f"{path} is missing: stage={stage} of the run {self.name!r} makes it; run it first "
                         f"(python pipelines/run.py stage={stage} name={self.name}), or choose another name= or root=")

    def has(self, stage: str, what: str = "") -> bool:
        """Whether another stage has made ``what``."""
        return (self.stage(stage) / what).exists()

    def open(self, stage: str, cfg: RunConfig, command: list[str] | None = None) -> Path:
        """Make the stage's folder with ``config.yaml``, ``provenance.json`` and what the checkout has of changes that
        are not committed; written by rank 0 alone.

        Raises:
            InputError: if the folder cannot be written.
        """
        folder = self.stage(stage)
        if global_rank() == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(folder / "config.yaml", to_yaml(cfg))
                made_with = provenance(command)
                write_atomically(folder / "provenance.json", json.dumps(made_with, indent=2) + "\n")
                patch = difference_file(made_with["code"])
                if patch and not (folder / patch).exists():
                    write_atomically(folder / patch, code_difference(CHECKOUT))
            except OSError as error:
                raise InputError(f"cannot write to {folder}: {error.strerror or error}; free some space or "
                                 f"choose another root=") from error
        return folder


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``: readers see the old file or the whole new one, also after a power cut."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def global_rank() -> int:
    """This process's rank as its launcher (Slurm, torchrun, Lightning) tells it; 0 alone."""
    for key in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(key, "").isdigit():
            return int(os.environ[key])
    return 0
