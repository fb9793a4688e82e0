"""``stage=orchestrator|teacher|dmd|rollout``: builds the stage's module and data, and trains."""

from __future__ import annotations

import gc
import logging
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console

from callbacks import checkpoint_files as files
from callbacks.alerts import Alerts
from datamodules.module import LatentDataModule
from pipelines.build import build_module, load_codecs, model_spec
from pipelines.closing import print_closing
from pipelines.code_difference import difference_file
from pipelines.config.compose import to_yaml
from pipelines.config.places import CHECKOUT
from pipelines.config.schema import RunConfig
from pipelines.fitting import Fit, fit
from pipelines.memory_advice import memory_advice
from pipelines.provenance import code_state
from pipelines.resume import find_start, settings
from pipelines.run_directory import RunDirectory, global_rank, write_atomically
from pipelines.sweep import swept
from pipelines.tracking import open_loggers
from streamchar.errors import DeviceMemoryError

log = logging.getLogger(__name__)


def run(cfg: RunConfig, directory: RunDirectory) -> bool:
    """Train ``cfg.stage`` from its newest checkpoint, or from the start; whether it is complete.

    Raises:
        InputError: missing inputs, settings that differ from the checkpoint's, a checkpoint of another architecture.
        DeviceMemoryError: naming the role whose work did not fit, and the options that would help most.
        KeyboardInterrupt: after Ctrl-C; the state was saved.
    """
    stage, folder = cfg.stage, directory.stage(cfg.stage)
    options = getattr(cfg.stages, stage)
    steps = min(options.steps, cfg.trainer.max_steps or options.steps)
    now = settings(cfg, stage, directory)
    start = find_start(folder / "checkpoints", cfg.trainer.resume, now)
    done = files.step_of(start) if start else None
    console = Console(quiet=global_rank() != 0, highlight=False)
    if done is not None:
        console.print(f"{stage}: going on from step {done} of {steps}" if done < steps else
                      f"{stage}: trained already, step {done} of {steps}")
    alerts = [Alerts(cfg.callbacks.alerts, cfg.name, stage, folder)] if cfg.callbacks.alerts.url else []
    for alert in alerts:
        alert.begin(done)
    if done is None or done < steps:
        code = code_state(CHECKOUT) if global_rank() == 0 else {}  # hundreds of ranks would all ask git
        note_changes(folder, start, to_yaml(cfg), code)
        about = {"config": to_yaml(cfg), "settings": now, "code": code, "stage": stage}
        module, data = build_module(stage, cfg, directory), build_data(cfg, directory)
        # Alerts come first: they are told before the others wait for servers.
        params = science(cfg, stage, module) | swept(directory)
        loggers = [*alerts, *open_loggers(cfg.callbacks.tracking, directory, stage, done, params)]
        average = (options.ema_decay, options.average_from())
        trainer = replace(cfg.trainer, val_every=options.val_every or cfg.trainer.val_every,
                          compile=options.compile or cfg.trainer.compile)
        job = Fit(stage, folder, steps, trainer, cfg.callbacks, average, start, about)
        try:
            complete = fit(job, module, data, loggers)
        except DeviceMemoryError as error:
            raise DeviceMemoryError(error.doing, error.cause, memory_advice(cfg, stage)) from error
        del module, data
        gc.collect()
        if not complete:
            return False
    else:  # a process that died right after its last save has not said so
        for logger in [*alerts, *open_loggers(cfg.callbacks.tracking, directory, stage, done)]:
            logger.finish("FINISHED")
    print_closing(stage, folder / "metrics.jsonl", console)
    return True


def note_changes(folder: Path, start: Path | None, now: str, code: dict[str, Any]) -> None:
    """Keep in ``config_diff_STEP.txt`` how configuration and code differ from those of the checkpoint."""
    if start is None or global_rank() != 0:
        return
    about = files.load(start).get("about", {})
    then = str(about.get("config", ""))
    changed = [*changed_code(about.get("code") or {}, code),
               *unified_diff(then.splitlines(), now.splitlines(), "before", "after", n=0, lineterm="")]
    if changed:
        write_atomically(folder / f"config_diff_{files.step_of(start):08d}.txt", "\n".join(changed) + "\n")


def changed_code(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Two lines where the code differs from the checkpoint's; none where either is not known."""
    lines = [" with ".join(filter(None, (f"code: {code['revision']}", difference_file(code))))
             for code in (then, now) if code.get("revision")]
    return [f"-{lines[0]}", f"+{lines[1]}"] if len(lines) == 2 and lines[0] != lines[1] else []


def build_data(cfg: RunConfig, directory: RunDirectory) -> LatentDataModule:
    """The stage's batches from the run's latents."""
    codecs = load_codecs(directory)
    spec = model_spec(cfg, codecs)
    most = max(cfg.data.rollout_chunks, cfg.stages.rollout.max_chunks) if cfg.stage == "rollout" else None
    return LatentDataModule(
        cfg.data, directory.input("encode", "latents"), spec.clock, spec.window, spec.units(), cfg.stage, cfg.seed,
        {"video": codecs.video.fingerprint, "audio": codecs.audio.fingerprint},
        getattr(cfg.stages, cfg.stage).batch_size, most, directory.stage(cfg.stage))


def science(cfg: RunConfig, stage: str, module: L.LightningModule) -> dict[str, Any]:
    """The few settings by which runs are told apart on a dashboard; the rest is in config.yaml."""
    options = getattr(cfg.stages, stage)
    found: dict[str, Any] = {"stage": stage, "preset": cfg.preset, "seed": cfg.seed,
                             "batch_size": options.batch_size or cfg.data.batch_size, "steps": options.steps}
    for role in ("optimizer", "generator", "critic"):
        if hasattr(options, role):
            found[f"{role}.lr"], found[f"{role}.kind"] = getattr(options, role).lr, getattr(options, role).kind
    found["parameters_m"] = round(sum(p.numel() for p in module.parameters() if p.requires_grad) / 1e6, 3)
    return found
