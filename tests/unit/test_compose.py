"""Composed items: motion is the previous chunk, text covers the window, weights, quiet, pointer (design, section 8)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.collate import ChunkCollate
from datamodules.compose import ItemComposer, Place
from datamodules.config import DataConfig
from datamodules.latent_shards import LatentStore
from datamodules.order import rng_at
from streamchar.orchestrator.text import SpelledWords
from tests.latent_fakes import AWKWARD, CLOCK, WINDOW, write_store

UNITS = SpelledWords()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return LatentStore(write_store(tmp_path_factory.mktemp("latents")), CLOCK)


def composer(store, clock=CLOCK, window=WINDOW, seed=0, **options):
    return ItemComposer(store, clock, window, UNITS, DataConfig(**options), seed)


def rows(words):
    return [UNITS.encode(w)[0] for w in words]


def at(store, clip, phase, chunk, **options):
    items = composer(store, **{"pointer_jitter": 0.0, **options})
    return items.compose(Place(store.clips[clip], phase, chunk, False, False), 0, rng_at(0, 0))


def test_motion_sound_and_past_precede_the_chunk(store):
    for phase in range(4):
        offset = store.index.offsets[phase]
        item = at(store, 3, phase, 2, sink_other_p=0.0, history_full_p=1.0)
        assert item.video[0, 0, 0, 0] == offset + 66
        previous = store.clips[3].video(phase)[1]
        np.testing.assert_array_equal(item.motion, previous[:, -5:])
        np.testing.assert_array_equal(item.sink, store.clips[3].video(phase)[0][:, :3])
        begin = (offset + 66) / 25
        np.testing.assert_allclose(item.audio[:, 0], begin + np.arange(33) / 25, atol=1e-5)
        np.testing.assert_allclose(item.past[:, 0], begin - np.arange(8, 0, -1) / 25, atol=1e-5)
        np.testing.assert_allclose(item.recent[:, 0], begin - np.arange(50, 0, -1) / 25, atol=1e-5)


def test_pointer_and_text_against_a_hand_case(store):
    """Clip 0 says six words of .5 s from .4 s; chunk 1 spans 1.32 to 2.64 s: words 1.84 to 4.48."""
    item = at(store, 0, 0, 1, history_full_p=1.0)
    assert item.text.spoken[-1:] == rows(["bin"])
    assert item.text.todo == rows(["blue", "at", "f", "two", "now"])
    assert item.text.cursor == pytest.approx(0.84, abs=1e-5)
    assert item.pointer == pytest.approx(4.48 - 1, abs=1e-5)


def test_history_text_covers_exactly_the_window(store):
    """Chunk 2 begins at 2.64 s; the words that can be heard in the window and have ended are the spoken text."""
    clip = store.clips[0].record
    items = composer(store, pointer_jitter=0.0)
    for seed in range(60):
        item = items.compose(Place(store.clips[0], 0, 2, False, False), 0, rng_at(7, seed))
        begin = 2.64 - len(item.recent) / 25
        heard = [w.text for w in clip.timed if w.end > begin + 1e-9 and w.end <= 2.64]
        assert item.text.spoken == rows(heard)


def test_short_pasts_are_prolonged_by_the_same_speaker_with_their_text(store):
    """Clip 1's first chunk gives 33 latents; the 17 before end another clip of s1: .08 s of a word."""
    item = at(store, 1, 0, 1, history_full_p=1.0)
    assert len(item.recent) == 50
    own, earlier = item.recent[-33:], item.recent[:17]
    assert set(own[:, 1]) == {1} and len(set(earlier[:, 1])) == 1
    assert earlier[0, 1] != 1 and earlier[0, 1] % 2 == 1
    np.testing.assert_allclose(earlier[:, 0], np.arange(83, 100) / 25, atol=1e-5)
    tail = store.clips[int(earlier[0, 1])].record.timed[-1].text
    assert item.text.spoken == rows([tail, "blue"])
    long = replace(WINDOW, recent_s=6.0, max_spoken=20)
    item = at(store, 1, 0, 1, history_full_p=1.0, window=long)
    assert len(item.recent) == 150
    donor = store.clips[int(item.recent[110, 1])].record  # the whole clip before: six words
    assert item.text.spoken[-7:] == rows([w.text for w in donor.timed] + ["blue"])


def test_anchor_is_the_speakers_voice_elsewhere(store):
    for position in range(60):
        item = composer(store, anchor_drop_p=0.0).item(position)
        number = item.place.clip.number
        assert len(item.anchor) <= 25
        assert all(n != number and n % 2 == number % 2 for n in item.anchor[:, 1])


def test_anchor_of_a_lone_clip_keeps_away_from_the_target(tmp_path):
    store = LatentStore(write_store(tmp_path, clips=1), CLOCK)
    items = composer(store, anchor_drop_p=0.0)
    for position in range(60):
        item = items.item(position)
        begin = items.start(item.place)
        assert all(t + 0.04 <= begin + 1e-4 or t >= begin + 1.32 - 1e-4 for t in item.anchor[:, 0])


def test_shares(store):
    items = composer(store)
    many = [items.item(p) for p in range(3000)]
    first = [i for i in many if i.place.first]
    quiet = [i for i in many if i.place.quiet]
    assert 0.17 < len(first) / len(many) < 0.23
    assert len(quiet) / len(many) > 0.045
    rest = [i for i in many if not i.place.first]
    assert 0.45 < np.mean([i.sink[1, 0, 0, 0] != i.place.clip.number for i in rest]) < 0.55
    assert {i.ref[1, 0, 0, 0] % 2 == i.place.clip.number % 2 for i in many} == {True}
    assert {i.place.phase for i in rest} == {0, 1, 2, 3}


def test_quiet_items_have_no_text_and_lie_behind_the_last_word(store):
    items = composer(store, quiet_p=1.0)
    for position in range(200):
        item = items.item(position)
        assert item.text.todo == [] and item.pointer == 0 and item.text.cursor == 0
        assert items.start(item.place) >= item.place.clip.record.speech_end - 1e-6


@pytest.mark.parametrize(("seconds", "places"), [(2.5, {(0, 1), (1, 1)}), (1.6, {(0, 1), (1, 1), (2, 1), (3, 1)})])
def test_short_clips_go_on_only_where_words_are_left(tmp_path, seconds, places):
    """Words end at 1.9 s: chunks that start at 1.96 and 2.28 s would be quiet. Where they end at .9 s all would."""
    short = LatentStore(write_store(tmp_path, seconds=seconds), CLOCK)
    items = [composer(short, quiet_p=0.0, first_chunk_p=0.0).item(p) for p in range(300)]
    assert {(i.place.phase, i.place.chunk) for i in items} == places
    assert all(bool(i.text.todo) == (seconds == 2.5) for i in items)
    grid = composer(short, quiet_p=0.0, first_chunk_p=0.0, chunk_starts="grid")
    assert {(i.place.phase, i.place.chunk) for i in map(grid.item, range(100))} == {(0, 1)}


def test_first_chunks_know_nothing_of_a_past(store):
    items = composer(store, first_chunk_p=1.0, quiet_p=0.0)
    for position in range(200):
        item = items.item(position)
        assert item.motion is None and item.sink is None and item.past is None and len(item.recent) == 0
        assert item.text.spoken == [] and item.text.cursor == 0 and item.place.chunk == 0
        said = items.start(item.place)
        assert item.text.todo == rows([w.text for w in item.place.clip.record.timed if w.end > said])


def test_grid_starts_use_the_first_phase_alone(store):
    items = composer(store, chunk_starts="grid")
    assert {items.item(p).place.phase for p in range(300)} == {0}


def test_jitter_moves_the_cursor_but_not_the_truth(store):
    exact, moved = composer(store, pointer_jitter=0.0), composer(store)
    errors = []
    for seed in range(400):
        place = Place(store.clips[0], 0, 1, False, False)
        a, b = (c.compose(place, 0, rng_at(1, seed)) for c in (exact, moved))
        errors.append(b.text.cursor + 5 - len(b.text.todo) - a.text.cursor)
        assert b.pointer - len(b.text.todo) == pytest.approx(a.pointer - len(a.text.todo), abs=1e-5)
    assert 0.1 < np.std(errors) < 0.14


def test_fractional_rates_weigh_owned_latents_only(tmp_path):
    store = LatentStore(write_store(tmp_path, clock=AWKWARD, seconds=8.0), AWKWARD)
    items = composer(store, AWKWARD, first_chunk_p=0.0)
    collate = ChunkCollate(AWKWARD, WINDOW, 2, store.index.video, UNITS.width)
    batch = collate([items.compose(Place(store.clips[0], 1, k, False, False), k, rng_at(0, k)) for k in range(1, 5)])
    assert batch.target.audio.shape == (4, 35, 2)
    assert batch.audio_weight.sum(1).tolist() == [34, 35, 34, 34]  # ceil(34.375 (k + 1)) - ceil(34.375 k)
    begin = torch.tensor([8 / 24 + k * 1.375 for k in range(1, 5)])  # phase 1 starts at frame 8
    torch.testing.assert_close(batch.target.audio[:, :, 0], begin[:, None] + batch.conditions.audio_time,
                               atol=2e-5, rtol=0)
    torch.testing.assert_close(batch.conditions.history[:, -1, 0], begin + batch.conditions.history_time[:, -1],
                               atol=2e-5, rtol=0)
    assert (batch.conditions.history_time[:, :25] == batch.conditions.history_time[0, :25]).all()


def test_collation_aligns_and_flags(store):
    items = composer(store)
    batch = ChunkCollate(CLOCK, WINDOW, 2, store.index.video, UNITS.width)([items.item(p) for p in range(64)])
    c = batch.conditions
    assert batch.target.video.shape == (64, 2, 9, 2, 2) and batch.target.video.dtype == torch.float32
    assert c.ref.shape[2] == 1 and c.motion.shape[2] == 5 and c.sink.shape[2] == 3 and c.past_audio.shape == (64, 8, 2)
    first = torch.tensor([items.item(p).place.first for p in range(64)])
    assert (c.has_motion == ~first).all() and (c.has_sink == ~first).all() and c.has_ref.all()
    assert (c.motion[first] == 0).all()
    assert (c.history[~c.history_mask] == 0).all() and (c.history_time < 0).all()
    counts = c.history_mask[:, 25:].sum(1)
    for b in range(64):
        assert c.history_mask[b, 75 - counts[b]:].all()
    assert (c.cursor >= 0).all() and (batch.pointer <= c.todo.mask.sum(1)).all()
    assert batch.index.tolist() == list(range(64)) and len(batch.keys) == 64


def test_speech_only_clips_give_items_of_sound(tmp_path):
    store = LatentStore(write_store(tmp_path, video=False), CLOCK)
    items = ItemComposer(store, CLOCK, WINDOW, UNITS, DataConfig(), 0, with_video=False)
    batch = ChunkCollate(CLOCK, WINDOW, 2, store.index.video, UNITS.width)([items.item(p) for p in range(8)])
    assert not batch.has_video.any() and not batch.conditions.has_ref.any()
    assert batch.target.video.shape == (8, 1, 9, 1, 1) and batch.target.audio.abs().sum() > 0
    with pytest.raises(Exception, match="no clip with pictures"):
        ItemComposer(store, CLOCK, WINDOW, UNITS, DataConfig(), 0)


def test_sound_alone_may_start_at_any_latent_between_the_words(store, tmp_path):
    """With pictures nothing changes; without them half of the chunks that go on start off every phase's grid."""
    plain, anywhere = composer(store), composer(store, anywhere_p=1.0)
    assert [i.place for i in map(plain.item, range(40))] == [i.place for i in map(anywhere.item, range(40))]

    short = LatentStore(write_store(tmp_path, phases=1, seconds=2.5), CLOCK)
    options = DataConfig(anywhere_p=0.5, pointer_jitter=0.0, history_full_p=1.0)
    items = ItemComposer(short, CLOCK, WINDOW, UNITS, options, 0, with_video=False)
    going_on = [i for i in map(items.item, range(400)) if not i.place.first and not i.place.quiet]
    off = [i for i in going_on if i.place.latent is not None]
    assert 0.4 < len(off) / len(going_on) < 0.6
    for item in off:
        facts, begin = item.place.clip.facts(CLOCK), items.start(item.place)
        assert facts.speech[0] <= begin < facts.speech[1]
        np.testing.assert_allclose(item.audio[:, 0], begin + np.arange(33) / 25, atol=1e-5)
        assert set(item.audio[:, 1]) == {item.place.clip.number}
        own = item.recent[item.recent[:, 1] == item.place.clip.number]
        np.testing.assert_allclose(own[:, 0], begin - np.arange(len(own), 0, -1) / 25, atol=1e-5)
        assert len(item.recent) == 50 and len(own) == min(item.place.latent, 50)
        mine = [w for w in item.place.clip.record.timed if w.end > begin + 1e-9]
        assert item.text.todo == rows([w.text for w in mine])
        whole = max((begin - mine[0].start) / (mine[0].end - mine[0].start), 0.0)
        assert item.text.cursor == pytest.approx(whole, abs=1e-5)
    starts = {item.place.latent for item in off}
    assert len(starts) > 25 and max(starts) >= 36  # the last word begins at 1.4 s and ends at 1.9 s
    batch = ChunkCollate(CLOCK, WINDOW, 2, None, UNITS.width)(off[:4])
    np.testing.assert_allclose(batch.conditions.audio_time[0], np.arange(33) / 25, atol=1e-6)
