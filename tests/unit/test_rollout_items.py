"""Beginnings of rollouts: texts that outlast them, real starts with real state, held-out streams with their truth."""

import numpy as np
import pytest
import torch

from datamodules.collate import ChunkCollate
from datamodules.compose import ItemComposer
from datamodules.config import DataConfig
from datamodules.evaluation_set import EvaluationSet
from datamodules.latent_shards import LatentStore
from datamodules.rollout_items import RolloutCollate, RolloutComposer
from streamchar.orchestrator.text import SpelledWords
from streamchar.rollout.memory import StreamMemory
from tests.latent_fakes import CLOCK, WINDOW, write_store

UNITS = SpelledWords()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return LatentStore(write_store(tmp_path_factory.mktemp("latents")), CLOCK)


def streams(store, chunks=8, **options):
    return RolloutComposer(ItemComposer(store, CLOCK, WINDOW, UNITS, DataConfig(**options), 0), chunks)


def test_transcripts_outlast_the_rollout_or_end_inside_it(store):
    seconds = 8 * 1.32
    long = [streams(store, end_inside_p=0.0).item(p) for p in range(100)]
    assert all(len(i.words) * 0.5 > seconds for i in long)
    short = [streams(store, end_inside_p=1.0).item(p) for p in range(100)]
    assert all(len(i.words) * 0.5 < seconds for i in short) and all(i.words for i in short)
    mixed = [streams(store, real_start_p=0.0).item(p) for p in range(1000)]
    assert 0.11 < np.mean([len(i.words) * 0.5 < seconds for i in mixed]) < 0.19


def test_real_starts_carry_real_state(store):
    items = [streams(store, real_start_p=1.0).item(p) for p in range(100)]
    for item in items:
        number = int(item.sink[1, 0, 0, 0])
        record = store.clips[number].record
        assert record.key == item.key
        border = item.motion[0, -1, 0, 0] + 4  # motion's last latent covers the chunk's last four frames
        begin = border / 25
        assert item.audio[-1, 0] == pytest.approx(begin - 1 / 25, abs=1e-5)
        said = [w.text for w in record.timed if w.end <= begin + 1e-9]
        assert list(item.spoken) == said[len(said) - len(item.spoken):]
        assert item.words[:1] == [w.text for w in record.timed if w.end > begin + 1e-9][:1]
        cut = [w for w in record.timed if w.start < begin < w.end]
        assert item.cursor == pytest.approx((begin - cut[0].start) / 0.5 if cut else 0.0, abs=1e-5)


def test_a_batch_begins_a_stream_memory(store):
    made = streams(store, real_start_p=0.5)
    collate = RolloutCollate(ChunkCollate(CLOCK, WINDOW, 2, store.index.video, UNITS.width))
    batch = collate([made.item(p) for p in range(16)])
    assert 2 < int(batch.has_start.sum()) < 14
    conditions, base = StreamMemory(batch, CLOCK, WINDOW, UNITS).conditions()
    assert (conditions.has_motion == batch.has_start).all()
    torch.testing.assert_close(conditions.cursor, batch.start_cursor, atol=1e-5, rtol=0)
    assert base.tolist() == [len(s) for s in batch.start_spoken]
    for b in range(16):
        assert conditions.spoken.mask[b].sum() == len(batch.start_spoken[b])


def test_evaluation_set_takes_turns_between_looks_and_keeps_the_truth(store):
    held_out = EvaluationSet(store, CLOCK, WINDOW, UNITS, count=4)
    batch = held_out.batch()
    assert [c.record.look for c in held_out.clips] == ["s0", "s1", "s0", "s1"]
    assert not batch.has_start.any() and batch.has_ref.all() and batch.anchor_mask.all()
    for i in range(4):
        truth = held_out.truth(i)
        assert batch.words[i] == [w.text for w in truth.words] == truth.text.split()
        assert truth.audio.shape == (100, 2) and truth.video.shape[0] == 4
        own = held_out.clips[i].number
        assert set(batch.anchor[i, :, 1].tolist()) != {own} and batch.ref[i, 1, 0, 0, 0] % 2 == own % 2
        assert batch.ref[i, 1, 0, 0, 0] != own
    assert held_out.batch(2, 1).keys == batch.keys[2:3]
