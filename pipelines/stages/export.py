"""``stage=export from=STAGE out=DIR``: a whole character in one folder, for others to load."""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from callbacks.mlflow_registry import register_model
from callbacks.redaction import redact
from pipelines.build import load_character, load_codecs, model_spec, trained_stage
from pipelines.config.places import SHIPPED, ships
from pipelines.config.schema import RunConfig
from pipelines.model_card import model_card
from pipelines.own_prompt import own_prompt
from pipelines.run_directory import RunDirectory
from streamchar.errors import InputError
from streamchar.hub.pretrained import PROMPT, export_character
from streamchar.rollout.character import Character

log = logging.getLogger(__name__)


def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``model.safetensors``, ``config.json``, the model card ``README.md`` and, if asked for, ``prompt/``.

    Raises:
        InputError: where there is no such model, or the folder cannot be written.
    """
    stage, role = trained_stage(directory, cfg.export.from_stage), cfg.export.role
    out = Path(cfg.export.out) if cfg.export.out else directory.stage("export")
    character = load_character(directory, cfg, stage, role)
    spec = replace(model_spec(cfg, load_codecs(directory)), denoiser=character.denoiser.config,
                   diffusion=character.diffusion)
    spec.extra = {"run": cfg.name, "preset": cfg.preset, "stage": stage, "role": role}
    given = f"./{out.name}" if ships(out.name) and out.resolve() != (SHIPPED / out.name).resolve() else out.name
    card = model_card(directory, stage, role, character, spec, given, cfg.export.dtype)
    spec.denoiser = replace(spec.denoiser, pretrained=None)  # all its weights are in the export
    try:
        _write_prompt(cfg, directory, character, out)
        export_character(character, spec, out, card, cfg.export.dtype)
    except OSError as error:
        raise InputError(f"cannot write the model to {out}: {error.strerror or error}; free some space or choose "
                         "another out=") from error
    size = (out / "model.safetensors").stat().st_size
    log.info("exported %s (%s) to %s: %.1f MB", stage, role, out, size / 1e6)
    if cfg.callbacks.tracking.kind == "mlflow":
        _register(cfg, directory, stage, out)


def _register(cfg: RunConfig, directory: RunDirectory, stage: str, out: Path) -> None:
    """Note the model in MLflow's registry; a server that will not costs a warning, the model is written."""
    tracking = cfg.callbacks.tracking
    name = f"{tracking.experiment}-{directory.name}"
    try:
        version = register_model(tracking.uri, directory.root, name, stage, out, directory.stage(stage))
    except Exception as error:
        log.warning("the model is not in MLflow's registry: %s", redact(str(error))[:200])
    else:
        log.info("registered as %s version %s, alias %s", name, version, stage)


def _write_prompt(cfg: RunConfig, directory: RunDirectory, character: Character, out: Path) -> None:
    """The run's own prompt, or none: a former export's must not stay where none is asked for."""
    for name in PROMPT:
        (out / name).unlink(missing_ok=True)
    if not cfg.export.prompt:
        return
    with tempfile.TemporaryDirectory() as aside:
        own = own_prompt(directory, character.clock, *character.codecs(), Path(aside))
        for source, name in zip(own, PROMPT, strict=True):
            if source is None:
                raise InputError("export.prompt=true: this run has no picture and voice of its own; leave it out, or "
                                 f"put {PROMPT[0]} and {PROMPT[1]} into the exported folder")
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, out / name)
