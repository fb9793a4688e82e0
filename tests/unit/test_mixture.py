"""Sets with weights: exact shares, each set's own order inside, the same items wherever training goes on."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from datamodules.collate import ChunkCollate
from datamodules.compose import ItemComposer
from datamodules.config import DataConfig, RespokenConfig
from datamodules.latent_format import INDEX_NAME
from datamodules.latent_shards import LatentStore
from datamodules.mixture import BLOCK, MixedOrder, check_sets, shares
from datamodules.order import GlobalOrder
from datamodules.rollout_items import RolloutCollate, RolloutComposer
from lightning_modules.figures import by_group
from streamchar.errors import DataError
from streamchar.orchestrator.text import SpelledWords
from tests.latent_fakes import CLOCK, WINDOW, write_store

BOUNDS = np.array([0, 4, 8, 20])


def mixed(weights=(3.0, 1.0), visits=None):
    visits = np.ones(20) if visits is None else visits
    return MixedOrder([GlobalOrder(BOUNDS[:3], visits, 5), GlobalOrder(BOUNDS[2:], visits, 6)], weights, seed=5)


def test_every_set_has_its_share_of_every_block():
    order = mixed()
    for block in range(3):
        clips = [order.clip(p) for p in range(block * BLOCK, (block + 1) * BLOCK)]
        assert sum(c < 8 for c in clips) == 768
    first = Counter(c for c in (order.clip(p) for p in range(BLOCK)) if c < 8)
    assert set(first.values()) == {96}  # whole epochs of the small set


def test_positions_are_a_pure_function():
    sequence = [mixed().clip(p) for p in range(2500)]
    order = mixed()
    assert [order.clip(p) for p in reversed(range(2500))] == sequence[::-1]
    assert sequence[:BLOCK] != sequence[BLOCK:2 * BLOCK]


def test_shares_are_whole_and_sum_up():
    assert shares([1, 1, 1], 1024) == [342, 341, 341]
    assert shares([1e-9, 1], 1024) == [1, 1023]
    assert sum(shares([0.2, 0.3, 0.41, 7.0], 1024)) == 1024


def test_a_set_without_items_for_the_stage_gives_its_share_to_the_others():
    visits = np.ones(20)
    visits[:8] = 0
    assert {mixed(visits=visits).clip(p) for p in range(200)} == set(range(8, 20))
    with pytest.raises(DataError, match="no set with a weight"):
        mixed(visits=np.zeros(20))


@pytest.fixture
def store(tmp_path):
    path = write_store(tmp_path, clips=12) / INDEX_NAME  # 3 shards of 4 clips
    index = json.loads(path.read_text())
    for row, name in zip(index["shards"], ("talk", "talk", "puppet"), strict=True):
        row["set"] = name
    path.write_text(json.dumps(index))
    return LatentStore(tmp_path, CLOCK)


def test_items_say_which_set_they_are_of(store):
    cfg = DataConfig(mix={"talk": {"shards": "a", "weight": 1}, "puppet": {"shards": "b", "weight": 3}})
    assert not cfg.problems() and store.sets == {"talk": (0, 2), "puppet": (2, 3)}
    items = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), cfg, seed=1)
    batch = ChunkCollate(CLOCK, WINDOW, 2, store.index.video, items.units.width)([items.item(p) for p in range(400)])
    assert all((g == "puppet") == (int(k[4:]) >= 8) for g, k in zip(batch.groups, batch.keys, strict=True))
    assert 0.65 < batch.groups.count("puppet") / 400 < 0.85
    streams = RolloutCollate(ChunkCollate(CLOCK, WINDOW, 2, store.index.video, items.units.width))(
        [RolloutComposer(items).item(p) for p in range(40)])
    assert streams.groups == batch.groups[:40]


def test_the_latents_must_hold_the_sets(store):
    check_sets(store.sets, DataConfig(mix={"talk": {}, "puppet": {"weight": 0.0}}))
    with pytest.raises(DataError, match="data.mix names talk, wild, the latents hold 'talk', 'puppet'"):
        check_sets(store.sets, DataConfig(mix={"talk": {}, "wild": {"weight": 2.0}}))


def test_latents_without_words_said_again_are_told_unless_they_were_given():
    asked = RespokenConfig(times=1)
    check_sets({"recorded": (0, 1), "again": (1, 2)}, DataConfig(respoken=asked))
    check_sets({"": (0, 1)}, DataConfig(respoken=asked, latents="x"))
    with pytest.raises(DataError, match="run stage=encode with it, or give data.respoken.times=0"):
        check_sets({"": (0, 1)}, DataConfig(respoken=asked))
    asked = RespokenConfig(times=1, joint_share=0.3)
    check_sets({"recorded": (0, 1), "again": (1, 2)}, DataConfig(respoken=asked, latents="x"))
    with pytest.raises(DataError, match="the latents of x hold no words said again"):
        check_sets({"": (0, 1)}, DataConfig(respoken=asked, latents="x"))


def test_what_is_said_again_has_its_share_wherever_the_latents_are_from():
    cfg = DataConfig(latents="x")
    assert cfg.weights(["recorded", "again"], 0.25) == {"recorded": 0.75, "again": 0.25}
    assert cfg.weights([""], 0.25) == {}
    assert DataConfig(mix={"a": {}}).weights(["recorded", "again"], 0.25) == {"a": 1.0}


def test_losses_are_told_apart():
    loss = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert by_group("train/audio", loss, ["a", "b", "a", "b"]) == {"train/audio_in_a": 2.0, "train/audio_in_b": 4.0}
    assert by_group("train/audio", loss, []) == {}


@pytest.mark.parametrize(("mix", "said"), [([1], "must be {NAME"), ({"a": {"weight": 1}}, "needs shards="),
                                           ({"a": {"shards": "x", "weight": -1}}, "at least 0"),
                                           ({"a": {"shards": "x", "share": 1}}, "must be {shards:")])
def test_wrong_mixtures_are_told(mix, said):
    problem, = DataConfig(mix=mix).problems()
    assert said in problem
