"""What the teacher hears of words said again: its share, as sound without pictures, in training alone."""

import json

import numpy as np
import pytest

from datamodules.config import DataConfig, RespokenConfig
from datamodules.latent_format import INDEX_NAME
from datamodules.mixture import BLOCK, MixedOrder
from datamodules.module import LatentDataModule
from datamodules.order import GlobalOrder
from streamchar.orchestrator.text import SpelledWords
from tests.latent_fakes import CLOCK, WINDOW, write_store

RECORDED_SPEECH = 7
"""A recorded clip without pictures, as of ``data.speech_shards``: it is the orchestrator's alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("latents")
    path = write_store(root / "train", clips=12, unseen=range(RECORDED_SPEECH, 12)) / INDEX_NAME
    index = json.loads(path.read_text())
    for row, name in zip(index["shards"], ("recorded", "recorded", "again"), strict=True):
        row["set"] = name
    path.write_text(json.dumps(index))
    write_store(root / "val", clips=4)
    return root


def module_of(folder, kind="teacher", **options):
    cfg = DataConfig(batch_size=64, respoken=RespokenConfig(times=1, **options))
    data = LatentDataModule(cfg, folder, CLOCK, WINDOW, SpelledWords(), kind, seed=5)
    data.setup()
    return data


def test_they_have_their_share_of_the_teachers_items_as_sound_alone(folder):
    data = module_of(folder, joint_share=0.25)
    batches = data.train_dataloader()
    again = 0
    for batch, _ in zip(batches, range(BLOCK // 64), strict=False):
        seen = batch.has_video
        assert seen.tolist() == [group == "recorded" for group in batch.groups] and 0 < seen.sum() < 64
        assert f"clip{RECORDED_SPEECH:03d}" not in batch.keys
        c = batch.conditions
        for has in (c.has_ref, c.has_motion, c.has_sink):
            assert has[seen].any() and not has[~seen].any()
        assert not batch.target.video[~seen].any() and batch.target.audio[~seen].flatten(1).any(dim=1).all()
        assert c.has_past[~seen].any() and c.todo.mask[~seen].any()
        again += int((~seen).sum())
    assert again == 256


def test_held_out_chunks_have_pictures_and_the_students_stages_see_recorded_clips_alone(folder):
    data = module_of(folder, joint_share=0.25)
    assert all(batch.has_video.all() for batch in data.val_dataloader())
    assert data.fixed_chunks(3).has_video.all()
    for kind in ("dmd", "rollout"):
        items = module_of(folder, kind, joint_share=0.25).train_items
        assert {items.item(p).group for p in range(64)} == {"recorded"}
    heard = module_of(folder, "orchestrator", joint_share=0.25).train_items
    assert sum(heard.item(p).group == "again" for p in range(BLOCK)) == BLOCK // 2  # ``share``, as ever


def test_without_a_share_the_order_is_as_it_was_before_there_was_one(folder):
    items = module_of(folder).train_items
    clips = [items.item(p).place.clip.number for p in range(24)]
    assert clips == [1, 6, 5, 6, 6, 4, 5, 0, 4, 2, 5, 2, 1, 0, 4, 3, 1, 3, 2, 3, 0, 2, 1, 6]  # as then
    visits = np.repeat([3, 0], [RECORDED_SPEECH, 12 - RECORDED_SPEECH])
    then = MixedOrder([GlobalOrder([0, 4, 8], visits, 5), GlobalOrder([8, 12], visits, 6)], [0.5, 0.5], seed=5)
    assert [items.order.clip(p) for p in range(3 * BLOCK)] == [then.clip(p) for p in range(3 * BLOCK)]


def test_a_share_changes_no_items_but_those_it_takes(folder):
    """Recorded clips keep their own order: those of both runs are the same, one after the other."""
    plain, joint = module_of(folder).train_items.order, module_of(folder, joint_share=0.25).train_items.order
    recorded = [clip for clip in (joint.clip(p) for p in range(BLOCK)) if clip < 8]
    assert recorded == [plain.clip(p) for p in range(BLOCK * 3 // 4)]
