"""Latent shards: what is refused, what is put aside, and that nothing is lost by an interruption."""

import json

import numpy as np
import pytest

from datamodules.compose import ItemComposer
from datamodules.config import DataConfig
from datamodules.latent_clip import all_finite
from datamodules.latent_shards import LatentStore
from datamodules.latent_writer import LatentShardWriter, finished_record
from streamchar.errors import DataError
from streamchar.orchestrator.text import SpelledWords
from tests.latent_fakes import AWKWARD, CLOCK, WINDOW, clip, write_store


def test_what_was_written_is_read(tmp_path):
    store = LatentStore(write_store(tmp_path), CLOCK, {"video": "video-codec", "audio": "audio-codec"})
    record, tensors = clip(5, CLOCK, store.index.offsets)
    found = store.clips[5]
    assert found.record == record
    for p in range(4):
        np.testing.assert_array_equal(found.video(p), tensors[f"video.{p}"])
        np.testing.assert_array_equal(found.audio(p), tensors[f"audio.{p}"])
    assert store.members("speaker", found).tolist() == store.members("look", found).tolist() == [1, 3, 5, 7]
    assert store.members("speaker", store.clips[2], in_shard=True).tolist() == [0, 2]


def test_another_codec_or_clock_is_refused(tmp_path):
    write_store(tmp_path)
    with pytest.raises(DataError, match="audio codec audio-codec, this run's audio codec is other.*stage=encode"):
        LatentStore(tmp_path, CLOCK, {"audio": "other"})
    with pytest.raises(DataError, match="fps=25.*this run has 24"):
        LatentStore(tmp_path, AWKWARD)


def test_missing_folder_names_the_stage(tmp_path):
    with pytest.raises(DataError, match="run stage=encode"):
        LatentStore(tmp_path / "nothing", CLOCK)


def test_nan_is_quarantined_and_replaced(tmp_path, caplog):
    store = LatentStore(write_store(tmp_path, poison=(2,)), CLOCK)
    items = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), DataConfig(), seed=0)
    batch = [items.item(p) for p in range(200)]
    assert list(store.quarantined) == ["clip002"]
    assert "NaN" in caplog.text
    assert all(np.isfinite(i.recent).all() and np.isfinite(i.audio).all() for i in batch)
    assert {i.place.clip.record.key for i in batch} == {f"clip{n:03d}" for n in range(8) if n != 2}


def test_too_many_bad_clips_stop_the_run(tmp_path):
    store = LatentStore(write_store(tmp_path, poison=(0, 2, 3, 5)), CLOCK)
    items = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), DataConfig(), seed=0)
    with pytest.raises(DataError, match="unusable, more than data.max_bad_share=0.2"):
        [items.item(p) for p in range(200)]


def test_a_cut_shard_keeps_what_precedes_the_cut(tmp_path):
    path = write_store(tmp_path, clips=12, per_shard=6) / "latents-00001.tar"
    path.write_bytes(path.read_bytes()[:-path.stat().st_size // 4])
    store = LatentStore(tmp_path, CLOCK, max_bad_share=0.4)
    assert 6 < len(store.clips) < 12
    assert len(store.clips) + len(store.quarantined) == 12
    with pytest.raises(DataError, match="is cut"):
        LatentStore(tmp_path, CLOCK, max_bad_share=0.05)


def test_finite_check_agrees_with_numpy():
    for dtype in (np.float16, np.float32):
        for value in (np.nan, np.inf, -np.inf):
            values = np.array([0.0, 6e4, -1.0], dtype)
            assert all_finite(values)
            values[1] = value
            assert not all_finite(values)


def test_an_interrupted_shard_leaves_nothing(tmp_path):
    record, tensors = clip(0, CLOCK, [0])
    with pytest.raises(OSError, match="disk"), LatentShardWriter(tmp_path / "a.tar") as writer:
        writer.add(record, tensors)
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


def test_only_a_complete_shard_of_the_same_recipe_is_kept(tmp_path):
    path = write_store(tmp_path, clips=4) / "latents-00000.tar"
    assert finished_record(path, "recipe")["clips"] == 4
    assert finished_record(path, "another") is None
    path.write_bytes(path.read_bytes()[:-10])
    assert finished_record(path, "recipe") is None


def test_index_of_another_format(tmp_path):
    index = write_store(tmp_path) / "shards.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "format": "old"}))
    with pytest.raises(DataError, match="format 'old'"):
        LatentStore(tmp_path, CLOCK)


def test_bad_clips_of_all_processes_are_listed_and_counted_once(tmp_path):
    folder, listed = write_store(tmp_path / "latents", clips=20, poison=(1, 2, 3)), tmp_path / "run" / "bad.jsonl"
    one, other = (LatentStore(folder, CLOCK, quarantine=listed) for _ in range(2))
    assert not any(one.usable(one.clips[n]) for n in (1, 2)) and not any(other.usable(other.clips[n]) for n in (2, 3))
    assert len(one.bad) == len(other.bad) == 3
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [r["key"] for r in rows] == ["clip001", "clip002", "clip003"]
    assert all("NaN" in r["reason"] and r["file"].endswith("latents-00000.tar") for r in rows)
    strict = LatentStore(folder, CLOCK, max_bad_share=0.1, quarantine=listed)  # 2 of 20
    with pytest.raises(DataError, match="3 of 20 clips.*data.max_bad_share=0.1.*clip003"):
        strict.usable(strict.clips[3])


def test_a_large_set_of_which_all_that_is_met_is_bad_stops_long_before_its_end(tmp_path):
    store = LatentStore(write_store(tmp_path, clips=100, poison=tuple(range(15))), CLOCK, max_bad_share=0.2)
    with pytest.raises(DataError, match="11 of 11 clips"):
        [store.usable(store.clips[n]) for n in range(15)]


def test_views_are_kept_only_where_every_map_stays_open(tmp_path, monkeypatch):
    folder = write_store(tmp_path, clips=8, per_shard=2)
    clip = LatentStore(folder, CLOCK).clips[0]
    assert clip.video(1) is clip.video(1) and clip.video(1) is not clip.video(0)
    monkeypatch.setattr("datamodules.shard_maps.OPEN_MAPS", 3)
    clip = LatentStore(folder, CLOCK).clips[0]
    assert clip.video(1) is not clip.video(1)  # it would keep a shard's map, and its file, open
    np.testing.assert_array_equal(clip.video(1), clip.video(1))
