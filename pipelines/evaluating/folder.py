"""``clips=DIR``: other systems' clips on our measures."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.progress import Progress

from pipelines.config.schema import RunConfig
from pipelines.evaluating.devices import open_devices
from pipelines.evaluating.given import SAMPLE_RATE, given_clips
from pipelines.evaluating.mouths import choose_mouth
from pipelines.evaluating.scoring import Means, score
from pipelines.evaluating.showing import show_clips
from pipelines.evaluating.syncnets import given_syncnet
from pipelines.run_directory import RunDirectory
from streamchar.evaluation.report import Report

log = logging.getLogger(__name__)


def score_folder(cfg: RunConfig, directory: RunDirectory, bar: Progress) -> Report:
    """The report on the clips of ``evaluate.folder``: one column, beside what needs no model.

    Raises:
        InputError: as :func:`given_clips`, :func:`open_devices` and :func:`given_syncnet`.
    """
    folder = Path(str(cfg.evaluate.folder))
    clock = cfg.clock.chunk_clock(SAMPLE_RATE / 640, SAMPLE_RATE)  # the latents' rate plays no part here
    devices = open_devices(cfg.evaluate.parts, real_faces=cfg.evaluate.mouth != "puppet")
    syncnet = given_syncnet(cfg.evaluate)
    subjects, clock = given_clips(folder, clock, bar)
    if syncnet is not None:
        syncnet.check_fps(clock.fps)
    if cfg.evaluate.cheats:
        log.warning("evaluate.cheats: cheats are made of a run's recorded clips; none are scored beside given ones")
    report = Report(f"Evaluation of {folder.name}", {
        "folder": folder.name, "clips": len(subjects), "left out": len([*folder.glob("*.mp4")]) - len(subjects),
        "fps": f"{clock.fps:g}"})
    show_clips(directory, subjects, report, clock, bar)
    mouth = None if cfg.evaluate.mouth == "puppet" else choose_mouth(cfg.evaluate, None, [], None)
    if cfg.evaluate.syncnet_clips and syncnet is None:
        report.notes.append("Not measured: our SyncNet (it is trained on a run's recorded clips: give "
                            "evaluate.syncnet=RUN/evaluate/syncnet).")
        log.warning("n%s", report.notes[-1][1:])
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
