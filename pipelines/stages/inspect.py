"""``stage=inspect``: a page of training items as the model sees them, for the eyes and ears of whoever trains it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.compose import ItemComposer
from datamodules.latent_shards import LatentStore
from datamodules.media import encode_wav
from datamodules.module import VALIDATION_SEED
from pipelines.build import load_codecs, model_spec
from pipelines.config.schema import RunConfig
from pipelines.inspecting.page import page
from pipelines.inspecting.views import ItemView, ItemViewer
from pipelines.run_directory import RunDirectory, write_atomically
from streamchar.streaming.muxer import write_clip

log = logging.getLogger(__name__)

GAP = 4
"""Pixels between the pictures of a strip."""
MOST_PICTURES = 3


def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``inspect/index.html`` and the films, sounds and pictures that it shows.

    The items are those that training meets at ``inspect.first`` and after: their order is random already.

    Raises:
        DataError: if the latents cannot be used.
    """
    codecs = load_codecs(directory)
    spec = model_spec(cfg, codecs)
    options = cfg.inspect
    store = LatentStore(directory.input("encode", f"latents/{options.split}"), spec.clock,
                        {"video": codecs.video.fingerprint, "audio": codecs.audio.fingerprint}, cfg.data.max_bad_share)
    seed = cfg.seed + (VALIDATION_SEED if options.split == "val" else 0)
    speech = options.speech or store.index.video is None  # a set of sound alone has no other items
    items = ItemComposer(store, spec.clock, spec.window, spec.units(), cfg.data, seed, with_video=not speech)
    viewer = ItemViewer(items, codecs.video, codecs.audio)
    folder = directory.stage("inspect")
    (folder / "items").mkdir(parents=True, exist_ok=True)
    shown = []
    for position in range(options.first, options.first + options.items):
        view = viewer.view(position)
        shown.append((view, _files(view, folder, spec.clock.fps, spec.clock.sample_rate)))
    facts = {"split": options.split, "clips": f"{len(store.clips):,}", "shards": f"{len(store.index.shards):,}",
             "hours": f"{float(store.table.columns['seconds'].sum()) / 3600:.2f}",
             "speakers": f"{len(store.table.names['speaker']):,}", "looks": f"{len(store.table.names['look']):,}",
             "an epoch": f"{items.order.epoch_length:,} items", "shuffled together": f"{items.order.window} shards",
             "quarantined": str(len(store.index.quarantined) + len(store.quarantined))}
    write_atomically(folder / "index.html", page(f"Items of {cfg.name}", facts, shown))
    log.info("%d items: %s", len(shown), folder / "index.html")


def _files(view: ItemView, folder: Path, fps: float, sample_rate: int) -> dict[str, str]:
    """Write an item's media; paths relative to the page by what they show."""
    name = f"items/{view.position:08d}"
    files = {}
    if len(view.frames):
        files["film"] = f"{name}.mp4"
        write_clip(folder / files["film"], view.frames, view.sound, fps, sample_rate)
    else:
        files["film"] = f"{name}.wav"
        (folder / files["film"]).write_bytes(encode_wav(view.sound, sample_rate))
    if len(view.anchor):
        files["anchor"] = f"{name}-anchor.wav"
        (folder / files["anchor"]).write_bytes(encode_wav(view.anchor, sample_rate))
    pictured = {"ref": view.frames[:0] if view.ref is None else view.ref[None],
                "motion": view.frames[:view.motion_frames],
                "sink": view.frames[:0] if view.sink is None else view.sink}
    for kind, pictures in pictured.items():
        if len(pictures):
            files[kind] = f"{name}-{kind}.png"
            _write_strip(folder / files[kind], pictures)
    return files


def _write_strip(path: Path, pictures: NDArray[np.uint8]) -> None:
    """Up to :data:`MOST_PICTURES` of (F, H, W, 3), evenly chosen, side by side."""
    from PIL import Image

    chosen = pictures[np.unique(np.linspace(0, len(pictures) - 1, MOST_PICTURES).round().astype(int))]
    padded = np.pad(chosen, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    Image.fromarray(np.concatenate(list(padded), axis=1)[:, :-GAP]).save(path)
