"""Rare words weigh more in the orchestrator's loss, by the seconds in which they sound."""

import numpy as np
import pytest

from datamodules.config import DataConfig
from datamodules.latent_shards import LatentStore
from datamodules.module import LatentDataModule
from datamodules.rare_words import LARGEST, RareWords
from streamchar.objectives.per_sample import audio_mean
from streamchar.orchestrator.text import SpelledWords
from streamchar.transcript import Word
from tests.latent_fakes import AWKWARD, CLOCK, WINDOW, write_store

# Three clips of 2.5 s say, half a second each: bin blue at / blue at f / at f two.
SECONDS = {"bin": 0.5, "blue": 1.0, "at": 1.5, "f": 1.0, "two": 0.5}


def rare(folder, exponent=1.0, clips=3, **options):
    return RareWords(LatentStore(write_store(folder, clips=clips, seconds=2.5, **options), CLOCK), exponent)


def test_a_word_weighs_by_the_seconds_in_which_it_sounds(tmp_path):
    words = rare(tmp_path / "whole")
    assert dict(words.seconds) == pytest.approx(SECONDS)
    for word, seconds in SECONDS.items():
        assert words.weight(word) == pytest.approx(1.5 / seconds)
    assert words.weight("Two,") == words.weight("two") == words.weight("never met") == pytest.approx(3)
    assert rare(tmp_path / "root", 0.5).weight("two") == pytest.approx(3 ** 0.5)


def test_hardly_any_word_weighs_without_bound(tmp_path):
    words = rare(tmp_path, 9.0)
    assert words.weight("two") == words.weight("never met") == LARGEST and words.weight("at") == 1


def test_a_damaged_record_is_passed_over(tmp_path):
    store = LatentStore(write_store(tmp_path, clips=3, seconds=2.5), CLOCK)
    record = int(store.table.columns["at"][1]) - int(store.table.columns["back"][1])
    shard = tmp_path / "latents-00000.tar"
    blob = bytearray(shard.read_bytes())
    blob[record:record + 1] = b"]"  # clip 1: blue at f
    shard.write_bytes(blob)
    found = RareWords(LatentStore(tmp_path, CLOCK), 1.0).seconds
    assert dict(found) == pytest.approx({"bin": 0.5, "blue": 0.5, "at": 1.0, "f": 0.5, "two": 0.5})


def test_a_latent_weighs_as_the_rarest_word_in_it_and_quiet_as_the_commonest(tmp_path):
    words = [Word("at", 0.0, 0.1), Word("f", 0.1, 0.2), Word("two", 0.2, 0.36), Word("bin", 5.0, 6.0)]
    found = rare(tmp_path).over(words, begin=0.04, rate=25.0, latents=9)
    # at .04 to .1, then f, which the second latent (.08 to .12) reaches; two from .2, quiet from .36
    np.testing.assert_allclose(found, [1, 1.5, 1.5, 1.5, 3, 3, 3, 3, 1])


def module_of(folder, kind, clock=CLOCK, **options):
    cfg = DataConfig(batch_size=96, val_items=16, first_chunk_p=0.3, quiet_p=0.0, **options)
    data = LatentDataModule(cfg, folder, clock, WINDOW, SpelledWords(), kind, seed=5)
    data.setup()
    return data


@pytest.mark.parametrize("clock", [CLOCK, AWKWARD])
def test_only_the_orchestrators_training_hears_it(tmp_path, clock):
    """Channel 0 of a fake latent is the second of the clip at which it begins, channel 1 the clip's number."""
    for split in ("train", "val"):
        write_store(tmp_path / split, clips=3, seconds=2.5, clock=clock)
    data = module_of(tmp_path, "orchestrator", clock, rare_words=1.0)
    batch = next(iter(data.train_dataloader()))
    store = LatentStore(tmp_path / "train", clock)
    owned = next(iter(module_of(tmp_path, "orchestrator", clock).train_dataloader())).audio_weight
    assert set(owned.unique().tolist()) <= {0.0, 1.0}
    seen = set()
    for sound, weights, mine in zip(batch.target.audio, batch.audio_weight, owned, strict=True):
        for (begin, clip), weight, own in zip(sound.tolist(), weights.tolist(), mine.tolist(), strict=True):
            said = [w.text for w in store.clips[round(clip)].record.timed
                    if w.start < begin + 0.04 - 1e-3 and w.end > begin + 1e-3]
            expected = max([1.5 / SECONDS[w] for w in said], default=1.0)
            assert weight == pytest.approx(own * expected)
            seen.add(round(weight, 3))
    assert seen >= {1.0, 1.5, 3.0}
    held_out = next(iter(data.val_dataloader())).audio_weight
    teachers = next(iter(module_of(tmp_path, "teacher", clock, rare_words=1.0).train_dataloader())).audio_weight
    for plain in (held_out, teachers):
        assert set(plain.unique().tolist()) <= {0.0, 1.0}


def test_the_loss_of_a_chunk_leans_towards_its_rare_words(tmp_path):
    write_store(tmp_path / "train", clips=3, seconds=2.5)
    write_store(tmp_path / "val", clips=3, seconds=2.5)
    batch = next(iter(module_of(tmp_path, "orchestrator", rare_words=1.0).train_dataloader()))
    error = (batch.audio_weight > 2).float()[..., None]  # wrong where the rarest words are
    plain = audio_mean(error, (batch.audio_weight > 0).float())
    leaning = audio_mean(error, batch.audio_weight)
    some = plain > 0
    assert some.any() and (leaning[some] > plain[some]).all() and (leaning <= 1).all()
    assert (leaning[~some] == 0).all()
