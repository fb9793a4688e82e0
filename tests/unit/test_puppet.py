"""The puppet: same seed same bytes, mouth in time with the sound, words where they are heard, splits apart."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from datamodules.clip_reader import read_clips
from datamodules.puppet.config import PrepareConfig
from datamodules.puppet.identity import VOICES, make_identity
from datamodules.puppet.puppet import render
from datamodules.puppet.recipe import plan_shards
from datamodules.puppet.sentences import draw_sentence, split_of
from datamodules.puppet.showcase import write_prompt
from datamodules.puppet.speech import Voice, resample, speak
from datamodules.puppet.take import make_take
from datamodules.puppet.visemes import mouth_track
from datamodules.quarantine import Quarantine
from datamodules.shards import INDEX_NAME, ShardIndex, expand_shards, sha256_of, split_shards
from streamchar.errors import InputError

SMALL = PrepareConfig(clips=4, val_clips=2, size=48, identities=4, val_identities=2, min_s=4.0, max_s=6.5,
                      shard_clips=2, workers=0)
VOICE = Voice("en-us", 130, 50, 50)

pytestmark = pytest.mark.skipif(find_spec("espeakng_loader") is None,
                                reason="espeakng-loader (extra: puppet) is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from datamodules.puppet.production import produce

    folder = tmp_path_factory.mktemp("puppet")
    produce(SMALL, folder)
    return folder


def energy(wave: np.ndarray, frames: int, fps: float, rate: int) -> np.ndarray:
    """Loudness of each frame's sound, dB, clipped to speech."""
    edges = np.round(np.arange(frames + 1) * rate / fps).astype(int)
    power = [float(np.mean(wave[a:b] ** 2)) for a, b in zip(edges, edges[1:], strict=False)]
    return np.clip(10 * np.log10(np.array(power) + 1e-9), -45, 0)


def test_held_out_clips_can_be_of_known_puppets_with_other_sentences():
    shards = plan_shards(replace(SMALL, val_identities=0))
    known = {c.identity for s in shards for c in s.clips if c.split == "train"}
    held = [c for s in shards for c in s.clips if c.split == "val"]
    assert held and all(c.identity in known for c in held)
    assert all(c.identity not in known for s in plan_shards(SMALL) for c in s.clips if c.split == "val")


def test_speech_does_not_depend_on_what_was_said_before() -> None:
    words = ["place", "red", "at", "c", "nine", "again"]
    first = speak(words, VOICE, 16000)
    speak(["the", "small", "dog", "runs", "to", "the", "river"], Voice("en+f2", 150, 60, 40), 16000)
    again = speak(words, VOICE, 16000)
    assert np.array_equal(first.wave, again.wave) and first.words == again.words and first.phones == again.phones


def test_words_and_phones_cover_the_speech_in_order() -> None:
    speech = speak(["the", "queen", "of", "the", "sea", "is", "near", "a", "house"], VOICE, 16000)
    assert [w.name for w in speech.words] == ["the", "queen", "of", "the", "sea", "is", "near", "a", "house"]
    for spans in (speech.words, speech.phones):
        assert all(b.start >= a.start and a.end > a.start for a, b in zip(spans, spans[1:], strict=False))
        assert spans[0].start < 0.1 and abs(spans[-1].end - speech.seconds) < 0.05
    assert 10 * np.log10(np.mean(speech.wave**2)) == pytest.approx(-21, abs=1.5)


def test_letters_are_spelled() -> None:
    said = speak(["bin", "blue", "by", "a", "two", "now"], VOICE, 16000)
    inside = [p.name for p in said.phones if said.words[3].start <= p.start < said.words[3].end - 0.02]
    assert any("e" in name for name in inside), inside


def test_every_voice_exists() -> None:
    assert sum(len(v) for v in VOICES.values()) >= 8
    for kind in VOICES.values():
        for name in kind:
            assert speak(["soon"], Voice(name, 130, 50, 50), 16000).seconds > 0.2
    with pytest.raises(InputError, match="no voice"):
        speak(["soon"], Voice("xx-nobody", 130, 50, 50), 16000)


def test_missing_espeak_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: object, **more: object) -> object:
        if name == "espeakng_loader":
            raise ImportError(name)
        return original(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match="puppet"):
        speak(["soon"], VOICE, 16000)


def test_resampling_keeps_a_tone() -> None:
    fade = np.hanning(22050)
    tone = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050) * fade
    out = resample(tone.astype(np.float32), 22050, 16000)
    wanted = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000) * np.interp(np.arange(16000) / 16000,
                                                                             np.arange(22050) / 22050, fade)
    assert len(out) == 16000 and np.abs(out - wanted).max() < 1e-3


def test_lips_close_for_p_b_m_and_open_for_vowels() -> None:
    speech = speak(["my", "mother", "paints", "a", "big", "apple"], VOICE, 16000)
    fps = 25.0
    track = mouth_track(speech.phones, int(speech.seconds * fps), fps)[:, 0]
    for phone in speech.phones:
        frames = track[max(int(phone.start * fps) - 1, 0): int(phone.end * fps) + 2]
        if phone.name[-1] in "pbm" and len(frames):
            assert frames.min() < 0.12, phone
        if phone.name.strip("ˈː") in ("ɑ", "æ", "a"):
            assert frames.max() > 0.5, phone


def test_mouth_moves_with_the_sound() -> None:
    """Correlation of opening with loudness over many clips peaks within one frame of lag 0."""
    cfg = replace(SMALL, clips=10, identities=10)
    lags = range(-6, 7)
    total = np.zeros(len(lags))
    for plan in [c for s in plan_shards(cfg) for c in s.clips if c.split == "train"]:
        take = make_take(plan, replace(cfg, size=32))
        opening, loud = take.play.mouth[:, 0], energy(take.wave, len(take.frames), cfg.fps, cfg.sample_rate)
        total += [np.corrcoef(opening[6:-6], loud[6 + lag: len(loud) - 6 + lag])[0, 1] for lag in lags]
    total /= cfg.clips
    best = lags[int(total.argmax())]
    assert abs(best) <= 1 and total.max() > 0.5, dict(zip(lags, total.round(2), strict=True))


def test_opening_is_visible_in_the_pixels() -> None:
    """The darkness of the mouth box follows the stated opening."""
    take = make_take(plan_shards(SMALL)[0].clips[0], replace(SMALL, size=96))
    from datamodules.puppet.puppet import mouth_box

    x0, y0, x1, y1 = (round(v * 96) for v in mouth_box(take.play))
    box = take.frames[:, y0:y1, x0:x1].astype(float)
    changed = np.abs(box - box[take.play.mouth[:, 0].argmin()]).mean((1, 2, 3))
    assert np.corrcoef(changed, take.play.mouth[:, 0])[0, 1] > 0.6
    outside = take.frames[:, : 96 // 8].astype(float).std(0).mean()
    assert outside < 12


def test_same_seed_same_frames_and_sound_other_seed_others() -> None:
    plan = plan_shards(SMALL)[0].clips[1]
    one, two = make_take(plan, SMALL), make_take(plan, SMALL)
    assert np.array_equal(one.frames, two.frames) and np.array_equal(one.wave, two.wave)
    other = make_take(plan_shards(replace(SMALL, seed=1))[0].clips[1], replace(SMALL, seed=1))
    assert other.who != one.who and other.sentences != one.sentences


def test_clip_length_edges_and_pauses() -> None:
    cfg = replace(SMALL, min_s=6.0, max_s=12.0, clips=6)
    for plan in plan_shards(cfg)[0].clips + plan_shards(cfg)[1].clips:
        take = make_take(plan, replace(cfg, size=32))
        seconds = len(take.frames) / cfg.fps
        assert 6.0 <= seconds <= 12.0 and len(take.wave) == round(seconds * cfg.sample_rate)
        assert 0.05 <= take.words[0].start <= 1.05 and 0.02 <= seconds - take.words[-1].end <= 1.6
        assert max(b.start - a.end for a, b in zip(take.words, take.words[1:], strict=False)) <= 1.6
        first = int(take.words[0].start * cfg.sample_rate)
        assert np.abs(take.wave[: first - 400]).max() < 0.05 < np.abs(take.wave[first:]).max()


def test_short_clips_share_a_fixed_set_of_sentences() -> None:
    cfg = replace(SMALL, clips=8, identities=4, sentences=4, grammar="grid", min_s=2.6, max_s=3.4, max_sentences=1)
    takes = [make_take(c, replace(cfg, size=32)) for s in plan_shards(cfg) for c in s.clips if c.split == "train"]
    assert all(len(t.sentences) == 1 and 2.6 <= len(t.frames) / 25 <= 3.4 for t in takes)
    said = {(t.who.name, t.sentences[0]) for t in takes}
    assert len(said) == 8 and len({s for _, s in said}) == 4 and len({w for w, _ in said}) == 4
    for sentence in {s for _, s in said}:
        assert len({w for w, s in said if s == sentence}) == 2


def test_splits_never_share_a_sentence_or_a_look() -> None:
    rng = np.random.default_rng(0)
    for grammar in ("grid", "free", "mixed"):
        assert all(split_of(draw_sentence(rng, grammar, "val", 0.5)) == "val" for _ in range(20))
    shards = plan_shards(SMALL)
    looks = {s: {c.identity for p in shards for c in p.clips if c.split == s} for s in ("train", "val")}
    assert not looks["train"] & looks["val"]
    with pytest.raises(InputError, match="grammar"):
        draw_sentence(rng, "klingon", "train", 0.5)


def test_identities_differ_and_draw_every_style() -> None:
    play = make_take(plan_shards(SMALL)[0].clips[0], replace(SMALL, size=32)).play
    play = type(play)(*(getattr(play, f)[:1] for f in ("mouth", "eyes", "gaze", "brows", "head")))
    people = [make_identity(i) for i in range(48)]
    pictures = [render(who, play, 32)[0].astype(float) for who in people]
    assert len({who.style for who in people}) >= 9 and len({who.voice.name for who in people}) == 10
    apart = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(apart) > 2


def test_wrong_options_come_all_at_once() -> None:
    with pytest.raises(InputError) as error:
        plan_shards(replace(SMALL, size=50, fps=30, grammar="x", min_s=9, max_s=3))
    assert all(word in str(error.value) for word in ("size=50", "fps=30", "grammar", "min_s"))
    with pytest.raises(InputError, match="max_s"):
        make_take(plan_shards(SMALL)[0].clips[0], replace(SMALL, min_s=0.5, max_s=0.8))


def test_shards_have_the_schema(made: Path) -> None:
    train, val = split_shards(expand_shards(made))
    assert (len(train), len(val)) == (2, 1)
    quarantine = Quarantine(max_rate=0)
    clips = list(read_clips(train + val, quarantine, fps=25, sample_rate=16000))
    assert len(clips) == 6 and quarantine.damaged == 0
    index = ShardIndex.load(made / INDEX_NAME)
    assert index.samples == 6 and index.seconds == pytest.approx(sum(c.seconds for c in clips), abs=0.01)
    assert all(sha256_of(made / e.file) == e.sha256 for e in index.entries.values())
    for clip in clips:
        meta = clip.meta
        assert clip.frames is not None and clip.frames.shape == (meta["frames"], 3, 48, 48)
        assert len(meta["mouth"]) == meta["frames"] and all(0 <= v <= 1 for v in meta["mouth"])
        assert " ".join(w.text for w in clip.words) == clip.text == " ".join(meta["sentences"])
        assert meta["held_out"] == ("-val-" in clip.shard) and len(meta["mouth_box"]) == 4
        assert meta["caption"] and meta["look"] == clip.speaker and meta["words"][0]["w"] == "sil"
        assert meta["words"][-1]["end"] <= meta["frames"] / 25 + 1e-3


def test_speech_alone_has_voices_of_its_own_and_no_pictures(tmp_path: Path) -> None:
    from datamodules.puppet.production import produce

    cfg = replace(SMALL, clips=1, val_clips=1, speech_clips=6, shard_clips=6, max_sentences=1, workers=0)
    assert plan_shards(cfg)[0] == plan_shards(replace(cfg, speech_clips=0))[0], "the films stay as they are"
    produce(cfg, tmp_path)
    train, _ = split_shards(expand_shards(tmp_path))
    film, *speech = read_clips(train, Quarantine(max_rate=0), fps=25, sample_rate=16000)
    assert film.frames is not None and len(speech) == 6
    assert all(c.frames is None and c.words and abs(len(c.wave) / 16000 - c.meta["frames"] / 25) < 1e-3 for c in speech)
    voices = [c.speaker for c in speech]
    assert voices[:4] == voices[:1] * 4 and voices[4:] == voices[4:5] * 2 and voices[0] != voices[4]
    puppets = {c.identity for s in plan_shards(SMALL) for c in s.clips}
    assert not puppets & {c.identity for s in plan_shards(cfg) for c in s.clips if not c.pictures}
    assert len({c.text for c in speech}) == 6


def test_a_second_run_keeps_whole_shards_and_remakes_damaged_ones(made: Path) -> None:
    from datamodules.puppet.production import produce

    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in made.glob("*.tar")}
    cut = made / "puppet-train-00001.tar"
    cut.write_bytes(before[cut.name][0][:5000])
    (made / "puppet-train-00009.tar").write_bytes(b"stale")
    counted: list[int] = []
    produce(SMALL, made, lambda clips, _: counted.append(clips))
    after = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in made.glob("*.tar")}
    assert {n: b for n, (b, _) in after.items()} == {n: b for n, (b, _) in before.items()}
    assert [n for n in after if after[n][1] != before[n][1]] == [cut.name]
    assert sum(counted) == 6


def test_workers_do_not_change_a_byte(made: Path, tmp_path: Path) -> None:
    from datamodules.puppet.production import produce

    shards = {p.name: p.read_bytes() for p in made.glob("*.tar")}
    produce(replace(SMALL, clips=6, val_clips=2, workers=2), tmp_path)
    again = {p.name: p.read_bytes() for p in tmp_path.glob("*.tar")}
    assert len(again) == 4 and all(again[name] == body for name, body in shards.items())


def test_prompt_of_a_held_out_puppet(tmp_path: Path) -> None:
    from PIL import Image

    write_prompt(SMALL, tmp_path)
    about = json.loads((tmp_path / "prompt.json").read_text())
    assert Image.open(tmp_path / "face.png").size == (48, 48) and about["look"] == "puppet-500000"
    assert 3 * 32000 <= (tmp_path / "voice.wav").stat().st_size <= 5.1 * 32000


def test_prompt_is_of_a_known_puppet_where_none_is_held_out(tmp_path: Path) -> None:
    known = replace(SMALL, val_identities=0)
    write_prompt(known, tmp_path)
    first = next(c for s in plan_shards(known) for c in s.clips if c.split == "val")
    look = json.loads((tmp_path / "prompt.json").read_text())["look"]
    assert look == make_identity(first.identity).name
