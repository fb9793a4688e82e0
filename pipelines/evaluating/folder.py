"""``clips=DIR``: other systems' clips on our measures."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.progress import Progress

from datamodules.latent_shards import LatentStore
from pipelines.build import load_codecs
from pipelines.config.schema import RunConfig
from pipelines.evaluating.devices import open_devices
from pipelines.evaluating.given import SAMPLE_RATE, given_clips
from pipelines.evaluating.mouths import choose_mouth
from pipelines.evaluating.scoring import Means, score
from pipelines.evaluating.showing import show_clips
from pipelines.evaluating.syncnets import our_syncnet, syncnet_or_note
from pipelines.run_directory import RunDirectory
from streamchar.errors import DataError
from streamchar.evaluation.report import Report
from streamchar.evaluation.syncnet import FPS_TOLERANCE, SyncNet

log = logging.getLogger(__name__)


def score_folder(cfg: RunConfig, directory: RunDirectory, bar: Progress) -> Report:
    """The report on the clips of ``evaluate.folder``: one column, beside what needs no model.

    Raises:
        InputError: as :func:`given_clips` and :func:`open_devices`.
    """
    folder = Path(str(cfg.evaluate.folder))
    clock = cfg.clock.chunk_clock(SAMPLE_RATE / 640, SAMPLE_RATE)  # the latents' rate plays no part here
    devices = open_devices(cfg.evaluate.parts, real_faces=cfg.evaluate.mouth != "puppet")
    subjects, clock = given_clips(folder, clock, bar)
    if cfg.evaluate.cheats:
        log.warning("evaluate.cheats: cheats are made of a run's recorded clips; none are scored beside given ones")
    report = Report(f"Evaluation of {folder.name}", {
        "folder": folder.name, "clips": len(subjects), "left out": len([*folder.glob("*.mp4")]) - len(subjects),
        "fps": f"{clock.fps:g}"})
    show_clips(directory, subjects, report, clock, bar)
    mouth = None if cfg.evaluate.mouth == "puppet" else choose_mouth(cfg.evaluate, None, [], None)
    syncnet = (syncnet_or_note(report, lambda: _syncnet_of_run(cfg, directory, clock.fps, bar))
               if cfg.evaluate.syncnet_clips else None)
    means = Means(devices, mouth, [], [], syncnet)
    score(report, subjects, means, cfg.evaluate, clock, "given", bar)
    own = sum(not (folder / f"{s.key}.png").is_file() for s in subjects)
    if own:
        report.notes.append(f"{own} of {len(subjects)} clips have no KEY.png: their own first frame is the reference, "
                            "and identity, colour and sharpness say only how they change.")
    if cfg.evaluate.mouth == "puppet":
        report.notes.append("The lips of drawn faces are not measured: their detector learns from a run's own clips.")
    report.notes.append("What is compared with a run's recorded clips is not measured here: relative identity, motion "
                        "as a share of theirs, similarity of the voice.")
    return report


def _syncnet_of_run(cfg: RunConfig, directory: RunDirectory, fps: float, bar: Progress) -> SyncNet:
    """Our SyncNet of the run that ``name=`` names, for given clips at ``fps``.

    Raises:
        DataError: where the run has no training clips, or none of about this frame rate.
    """
    if not directory.has("encode", "latents/train"):
        raise DataError(f"it is trained on a run's recorded clips, and the run {directory.name} has none: give name= "
                        "of a run that did stage=encode")
    if abs(fps / cfg.clock.fps - 1) > FPS_TOLERANCE:
        raise DataError(f"the given clips have {fps:g} fps, those of the run {directory.name} {cfg.clock.fps:g}")
    audio = load_codecs(directory).audio
    clock = cfg.clock.chunk_clock(audio.latent_rate, audio.sample_rate)
    train = LatentStore(directory.input("encode", "latents/train"), clock)
    return our_syncnet(directory.stage("evaluate") / "syncnet", train, clock, cfg.data.size,
                       cfg.evaluate.syncnet_clips, cfg.evaluate.seed, bar)
