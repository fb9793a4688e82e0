"""The DataModule of the training stages: one global order, resumed exactly by a count of consumed samples.

The training module reports every batch it has finished with ``trainer.datamodule.advance(len(batch))``; the count is
the same on all ranks and is saved with the checkpoint. What a loader had prefetched does not count.
"""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from datamodules.batches import TOGETHER, Batch, Cursor, FixedBatches, Share, Source, TrainBatches
from datamodules.collate import ChunkCollate
from datamodules.compose import ItemComposer
from datamodules.config import DataConfig
from datamodules.latent_shards import LatentStore
from datamodules.mixture import check_sets
from datamodules.rollout_items import RolloutCollate, RolloutComposer
from datamodules.spoken_clips import spoken_clips
from datamodules.worker_loss import WatchedLoader
from streamchar.clock import ChunkClock
from streamchar.errors import InputError, StreamCharError
from streamchar.evaluation.pointer_map import SpokenClip
from streamchar.transcript import TextUnits
from streamchar.types import ChunkBatch, RolloutBatch
from streamchar.window import WindowConfig

log = logging.getLogger(__name__)

KINDS = ("orchestrator", "teacher", "dmd", "rollout")
VALIDATION_SEED = 7919
"""Added to the run's seed for validation, so that training and validation items of an overfitted set differ."""


class LatentDataModule(L.LightningDataModule):
    """Batches from stored latents.

    Args:
        cfg: options of composition.
        folder: ``encode/latents`` of the run, with ``train`` and ``val``.
        clock, window, units: of the run.
        kind: the stage. ``orchestrator``: chunks of sound and text (``has_video`` False, video fields zero);
            ``teacher``: chunks, of which ``respoken.joint_share`` are sound alone in training; ``dmd``: chunks;
            ``rollout``: streams to begin.
        seed: of order and choices.
        fingerprints: of the run's codecs, checked against the latents'.
        batch_size: items per rank and step; 0 = ``cfg.batch_size``.
        rollout_chunks: chunks that transcripts must outlast; None = ``cfg.rollout_chunks``.
        quarantine: folder of ``quarantine_train.jsonl`` and ``quarantine_val.jsonl``, the clips that this start of the
            stage could not use (key, reason, file); None keeps no file.

    Raises:
        InputError: for an unknown kind; DataError from ``setup`` where the latents cannot be used.
    """

    def __init__(self, cfg: DataConfig, folder: Path, clock: ChunkClock, window: WindowConfig, units: TextUnits,
                 kind: str, seed: int = 0, fingerprints: dict[str, str | None] | None = None, batch_size: int = 0,
                 rollout_chunks: int | None = None, quarantine: Path | None = None) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"no items for stage {kind!r}; there are {', '.join(KINDS)}")
        self.cfg, self.folder, self.clock, self.window, self.units = cfg, Path(folder), clock, window, units
        self.kind, self.seed, self.fingerprints = kind, seed, fingerprints
        self.batch_size = batch_size or cfg.batch_size
        self.rollout_chunks, self.quarantine = rollout_chunks, quarantine
        self.cursor = Cursor()
        self.loader: WatchedLoader | None = None
        self.train_items: ItemComposer | None = None
        self.val_items: ItemComposer | None = None

    def prepare_data(self) -> None:
        """Begin the lists of bad clips anew; Lightning calls it on one process per machine, before any ``setup``."""
        for path in filter(None, map(self._listed, ("train", "val"))):
            path.unlink(missing_ok=True)

    def setup(self, stage: str | None = None) -> None:
        """Open the latents; called by the Trainer, harmless when repeated."""
        if self.train_items is not None:
            return
        train = self._open("train")
        check_sets(train.sets, self.cfg)
        val = train if self.cfg.overfit_clips else self._open("val")
        joint_share = self.cfg.respoken.joint_share if self.kind == "teacher" else 0.0
        rare_words = self.cfg.rare_words if self.kind == "orchestrator" else 0.0
        self.train_items = self._composer(train, self.seed, joint_share=joint_share, rare_words=rare_words)
        self.val_items = self._composer(val, self.seed + VALIDATION_SEED)
        # The clips' records live as long as the run; looked through at every collection they cost a tenth of a step.
        gc.freeze()

    def advance(self, local_samples: int) -> None:
        """Count the samples that this rank's step has finished; every rank calls it with the same number."""
        self.cursor.consumed += local_samples * self._share().world

    @property
    def quarantined(self) -> int:
        """Clips that the ranks and their workers could not use since this start of the stage."""
        stores = {id(items.store): items.store for items in (self.train_items, self.val_items) if items is not None}
        return sum(len(store.bad) for store in stores.values())

    @property
    def consumed(self) -> int:
        """Samples consumed by all ranks together since the stage began."""
        return self.cursor.consumed

    def train_dataloader(self) -> DataLoader:
        assert self.train_items is not None, "call setup() first"
        batches = TrainBatches(self._source(self.train_items), self.cursor, self._share())
        self.loader = WatchedLoader(batches, self.cfg.num_workers, self._share().rank)
        return self.loader

    def val_dataloader(self) -> DataLoader:
        assert self.val_items is not None, "call setup() first"
        count = self.cfg.val_streams if self.kind == "rollout" else self.cfg.val_items
        batches = FixedBatches(self._source(self.val_items), count, self._share())
        return WatchedLoader(batches, 0, self._share().rank)

    def lost_worker(self, error: BaseException) -> StreamCharError | None:
        """What to raise in the place of ``error`` where a loader process died; else None."""
        return self.loader.lost_worker(error) if self.loader is not None else None

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.cursor.consumed, "seed": self.seed, "order": self._order_length()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at the next sample. Another seed or data set is told, as the order then is another one."""
        self.cursor.consumed = int(state["consumed"])
        if self.train_items and (state["seed"], state["order"]) != (self.seed, self._order_length()):
            log.warning("the sample order has changed since the checkpoint (seed %s -> %s, clips visited per epoch %s "
                        "-> %s): training goes on at sample %d of the new order", state["seed"], self.seed,
                        state["order"], self._order_length(), self.cursor.consumed)

    def fixed_chunks(self, count: int) -> ChunkBatch:
        """The first ``count`` validation chunks with their pictures, in one batch: for samples and held-out scores."""
        assert self.val_items is not None, "call setup() first"
        composer = self.val_items
        if not composer.with_video:
            composer = self._composer(composer.store, composer.seed, with_video=True)
        return self._shapes(composer)([composer.item(p) for p in range(count)])

    def fixed_streams(self, count: int, rollout_chunks: int | None = None) -> RolloutBatch:
        """The first ``count`` validation streams, in one batch: for samples, probes and held-out scores."""
        assert self.val_items is not None, "call setup() first"
        composer = self.val_items
        if not composer.with_video:
            composer = self._composer(composer.store, composer.seed, with_video=True)
        streams = RolloutComposer(composer, rollout_chunks or self.rollout_chunks)
        return RolloutCollate(self._shapes(composer))([streams.item(p) for p in range(count)])

    def spoken_clips(self, count: int) -> list[SpokenClip]:
        """Up to ``count`` held-out clips with their sound and word times, as streams from their start."""
        assert self.val_items is not None, "call setup() first"
        return spoken_clips(self.val_items, self._shapes(self.val_items), count)

    def _open(self, split: str) -> LatentStore:
        return LatentStore(self.folder / split, self.clock, self.fingerprints, self.cfg.max_bad_share,
                           quarantine=self._listed(split))

    def _listed(self, split: str) -> Path | None:
        return self.quarantine and self.quarantine / f"quarantine_{split}.jsonl"

    def _composer(self, store: LatentStore, seed: int, with_video: bool | None = None,
                  joint_share: float = 0.0, rare_words: float = 0.0) -> ItemComposer:
        video = self.kind != "orchestrator" if with_video is None else with_video
        return ItemComposer(store, self.clock, self.window, self.units, self.cfg, seed, video, joint_share,
                            rare_words)

    def _shapes(self, items: ItemComposer) -> ChunkCollate:
        index = items.store.index
        video = index.video if items.with_video else None  # four fifths of a batch that the orchestrator never looks at
        return ChunkCollate(self.clock, self.window, index.audio_channels, video, items.units.width)

    def _source(self, items: ItemComposer) -> Source:
        if self.kind == "rollout":
            return Source(RolloutComposer(items, self.rollout_chunks).item, RolloutCollate(self._shapes(items)))
        return Source(items.item, self._shapes(items), 1 if items.store.maps.remote else TOGETHER)

    def _share(self) -> Share:
        if self.trainer is None:
            return Share(self.batch_size)
        return Share(self.batch_size, self.trainer.global_rank, self.trainer.world_size)

    def _order_length(self) -> int:
        return self.train_items.order.epoch_length if self.train_items is not None else 0
