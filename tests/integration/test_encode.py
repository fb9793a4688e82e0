"""Stage encode on small real files: geometry, resume, damaged clips, other rates, a disk that is full."""

import io
import json
import multiprocessing
import tarfile
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import shard_encoding
from datamodules.clip import Clip
from datamodules.clip_encoder import ClipEncoder, phase_offsets
from datamodules.compose import ItemComposer
from datamodules.config import DataConfig, RespokenConfig
from datamodules.conform import extend_frames, extend_wave, fit_frames, fit_rate, fit_wave
from datamodules.latent_shards import LatentStore
from datamodules.media import encode_mp4, encode_wav
from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory
from pipelines.stages import encode
from streamchar.clock import ChunkClock
from streamchar.codecs.store import load_codec
from streamchar.errors import DataError, InputError, StreamCharError
from streamchar.orchestrator.text import SpelledWords
from tests.diffusers_models import ltx2_audio, wan_vae
from tests.encode_process import encode_noted
from tests.loopback import serve

FPS, RATE, SIZE = 25, 16000, 32


def sample(number: int, seconds: float = 2.0, **changes: object) -> dict[str, bytes]:
    """A moving colour and a tone, two words, .6 s of quiet at the end."""
    rng = np.random.default_rng(number)
    t = np.arange(round(seconds * FPS)) / FPS
    frames = np.clip(rng.integers(60, 200, (1, SIZE, SIZE, 3)) + 40 * np.sin(5 * t)[:, None, None, None], 0, 255)
    sound = 0.3 * np.sin(2 * np.pi * (200 + 40 * number) * np.arange(round(seconds * RATE)) / RATE)
    sound[round((seconds - 0.6) * RATE):] = 1e-3 * rng.standard_normal(round(0.6 * RATE))
    meta = {"text": "red two", "speaker": f"s{number % 2}", "fps": FPS, "frames": len(t), "sample_rate": RATE,
            "words": [{"w": "red", "start": 0.2, "end": 0.8}, {"w": "two", "start": 0.8, "end": seconds - 0.6}]}
    return {"mp4": encode_mp4(frames.astype(np.uint8), FPS, 12), "wav": encode_wav(sound.astype(np.float32), RATE),
            "json": json.dumps({**meta, **changes}).encode()}


def write_tar(path: Path, samples: list[dict[str, bytes]], first: int = 0) -> None:
    with tarfile.open(path, "w") as tar:
        for number, files in enumerate(samples, first):
            for extension, body in files.items():
                info = tarfile.TarInfo(f"clip{number:03d}.{extension}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "x-train-00000.tar", [sample(n) for n in range(3)])
    write_tar(folder / "x-train-00001.tar", [sample(n) for n in range(3, 6)], 3)
    write_tar(folder / "x-val-00000.tar", [sample(n) for n in range(6, 8)], 6)
    return folder


def config(shards, **options) -> RunConfig:
    cfg = RunConfig(name="t", root=str(shards.parent / "runs"))
    cfg.clock = replace(cfg.clock, fps=25, chunk_frames=17)
    cfg.data = DataConfig(shards=str(shards), size=32, phases=2, codec_clips=6, **options)
    cfg.codec.audio = replace(cfg.codec.audio, channels=16)
    cfg.codec.video = replace(cfg.codec.video, channels=8)
    return cfg


def run(cfg):
    directory = RunDirectory.of(cfg)
    directory.stage("encode").mkdir(parents=True, exist_ok=True)
    encode.run(cfg, directory)
    return directory.stage("encode")


def open_store(cfg, folder, split="train"):
    codecs = {kind: load_codec(folder / "codecs" / kind) for kind in ("video", "audio")}
    clock = cfg.clock.chunk_clock(codecs["audio"].latent_rate, codecs["audio"].sample_rate)
    store = LatentStore(folder / "latents" / split, clock, {k: c.fingerprint for k, c in codecs.items()})
    return store, clock, codecs


def test_latents_are_the_codecs_own_encodings_of_the_chunks(shards):
    cfg = config(shards, latent_dtype="float32")
    store, clock, codecs = open_store(cfg, run(cfg))
    assert [c.record.key for c in store.clips] == [f"clip{n:03d}" for n in range(6)]
    assert store.index.offsets == [0, 8]
    clip = store.clips[4]
    assert clip.video(1).shape == (4, 8, 5, 4, 4)  # ceil((50 - 8) / 17) + 1 chunks
    assert len(clip.audio(1)) == clip.record.phases[1].latents == 4 * 17
    whole = torch.from_numpy(clip.video(1)[1:2].copy())
    shown = codecs["video"].decode(whole)[0]
    t = torch.arange(25, 42) / 25  # phase 1's second chunk: frames 8 + 17 ...
    swing = shown.mean((1, 2, 3)) - shown.mean()
    truth = 40 / 255 * (torch.sin(5 * t) - torch.sin(5 * t).mean())
    torch.testing.assert_close(swing, truth, atol=0.02, rtol=0)


def test_latents_of_wan_and_ltx2_are_their_autoencoders_own(shards):
    vae = wan_vae(shards.parent)
    ltx2_audio(shards.parent)
    cfg = config(shards, latent_dtype="float32", max_clips=2)
    cfg.codec.video = replace(cfg.codec.video, kind="wan", path=str(shards.parent))
    cfg.codec.audio = replace(cfg.codec.audio, kind="ltx2", path=str(shards.parent))
    store, clock, codecs = open_store(cfg, run(cfg))
    assert (clock.sample_rate, store.clips[0].audio(0).shape) == (24000, (4 * 17, 32))
    latents = torch.from_numpy(store.clips[0].video(0)[:1].copy())
    assert latents.shape == (1, 6, 5, 2, 2) and codecs["video"].spatial_stride == 16
    mean, std = (torch.tensor(vae.config[f"latents_{n}"]).view(1, -1, 1, 1, 1) for n in ("mean", "std"))
    with torch.no_grad():
        theirs = vae.decode(latents * std + mean).sample.transpose(1, 2) / 2 + 0.5
    torch.testing.assert_close(codecs["video"].decode(latents), theirs, atol=1e-4, rtol=1e-4)


def test_finished_shards_are_kept_and_others_made_again(shards):
    cfg = config(shards)
    folder = run(cfg)
    tars = sorted((folder / "latents" / "train").glob("*.tar"))
    before = [t.stat().st_mtime_ns for t in tars]
    tars[1].with_suffix(".json").unlink()  # as if interrupted before the record
    index = (folder / "latents" / "train" / "shards.json").read_bytes()
    run(cfg)
    after = [t.stat().st_mtime_ns for t in tars]
    assert after[0] == before[0] and after[1] != before[1]
    assert (folder / "latents" / "train" / "shards.json").read_bytes() == index  # and bit for bit the same
    cfg.data.phases = 3
    run(cfg)
    assert open_store(cfg, folder)[0].index.offsets == [0, 5, 11]


def test_two_processes_make_the_same_shards(shards):
    one, two = config(shards, encode_workers=1), config(shards, encode_workers=2)
    two.name = "u"
    a, b = run(one), run(two)
    for split in ("train", "val"):
        index = Path("latents") / split / "shards.json"
        assert (a / index).read_text() == (b / index).read_text()


@pytest.mark.parametrize(("end", "told"), [(KeyboardInterrupt(), None), (BrokenProcessPool(), "encode_workers= fewer")])
def test_what_ends_in_the_middle_leaves_nothing_in_the_queue(monkeypatch, end, told):
    submitted = []

    class Pool:
        """Two shards are encoded; ``end`` comes with the third."""

        def __init__(self, workers, **options):
            self.workers = workers

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, work, job):
            submitted.append(job.source.name)
            future = Future()
            if len(submitted) == 3:
                future.set_exception(end)
            else:
                future.set_result({"clips": 1})
            return future

    monkeypatch.setattr(encode, "ProcessPoolExecutor", Pool)
    jobs = [shard_encoding.EncodeJob(Path(f"x-{n}.tar"), Path(f"{n}.tar"), None) for n in range(20)]
    counted = []
    with pytest.raises(StreamCharError if told else KeyboardInterrupt, match=told):
        for _ in encode._records(jobs, 2, counted.append):
            pass
    assert len(submitted) <= 4 and 2 <= sum(counted) <= 3


def test_processes_started_at_once_share_the_shards(shards):
    """As on several machines with one folder: every shard is encoded once, all of them end, all see the same index."""
    write_tar(shards / "x-train-00002.tar", [sample(8)], 8)
    done = shards.parent / "encoded"
    cfg = config(shards, encode_workers=1)
    spawn = multiprocessing.get_context("spawn")  # a fork of a process whose libraries have threads may hang
    processes = [spawn.Process(target=encode_noted, args=(cfg, done)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]
    assert sorted(done.read_text().split()) == [f"train/latents-0000{i}.tar" for i in range(3)] + [
        "val/latents-00000.tar"]
    folder = RunDirectory.of(cfg).stage("encode")
    assert not list(folder.rglob("*.claim")) and not list(folder.rglob("*.part"))
    assert len(open_store(cfg, folder)[0].clips) == 7


@pytest.mark.parametrize("far", [False, True])
def test_latents_of_another_run_are_used_where_they_lie(shards, monkeypatch, far):
    cfg = config(shards)
    made = run(cfg)
    own = open_store(cfg, made)[0]
    monkeypatch.setenv("STREAMCHAR_CACHE", str(shards.parent / "cache"))
    with serve(made) as server:
        other = config(shards)
        other.name, other.data.shards, other.data.latents = "u", None, server.address if far else str(made)
        folder = run(other)
        store = open_store(other, folder)[0]
        assert not list((folder / "latents").rglob("*.tar"))
        assert [c.record for c in store.clips] == [c.record for c in own.clips]
        np.testing.assert_array_equal(store.clips[4].video(1), own.clips[4].video(1))
    other.data.size = 40
    other.data.latents = str(made)
    with pytest.raises(DataError, match="data.size=40, but .* are of pictures of 32"):
        run(other)
    other.data.latents = str(shards)
    with pytest.raises(DataError, match="no encode folder that can be used"):
        run(other)


def test_sets_of_a_mixture_are_encoded_together(shards):
    other = shards.parent / "other"
    other.mkdir()
    write_tar(other / "y-train-00000.tar", [sample(n) for n in (11, 12)], 11)
    cfg = config(shards)
    cfg.data.shards = None
    cfg.data.mix = {"talk": {"shards": str(shards), "weight": 1}, "other": {"shards": str(other), "weight": 2}}
    folder = run(cfg)
    store, clock, _ = open_store(cfg, folder)
    assert store.sets == {"talk": (0, 2), "other": (2, 3)}
    items = ItemComposer(store, clock, cfg.window, SpelledWords(), cfg.data, 0)
    assert {items.item(p).place.clip.record.key for p in range(60) if items.item(p).group == "other"} == {
        "clip011", "clip012"}
    val, _, _ = open_store(cfg, folder, "val")
    assert {ItemComposer(val, clock, cfg.window, SpelledWords(), cfg.data, 0).item(p).group for p in range(9)} == {
        "talk"}
    cfg.data.mix["more"] = {"shards": str(other / "*.tar")}
    with pytest.raises(DataError, match="is in other and in more"):
        run(cfg)


def test_damaged_clips_are_counted_and_the_rest_is_used(shards):
    silent = {k: v for k, v in sample(8).items() if k != "wav"}
    write_tar(shards / "x-train-00002.tar", [sample(9, fps=30), silent, sample(10)], 8)
    cfg = config(shards, max_bad_share=0.3)
    folder = run(cfg)
    rows = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert {r["key"]: r["reason"].split(":")[0] for r in rows} == {"clip008": "wrong fps", "clip009": "no sound"}
    store, _, _ = open_store(cfg, folder)
    assert [c.record.key for c in store.clips][-1] == "clip010"
    with pytest.raises(DataError, match="2 of 9 samples are damaged"):
        run(config(shards, max_bad_share=0.1))


def test_speech_without_pictures_joins_the_train_split(shards):
    speech = shards.parent / "speech"
    speech.mkdir()
    plain = [{k: v for k, v in sample(n).items() if k != "mp4"} for n in (20, 21)]
    write_tar(speech / "speech-00000.tar", plain, 20)
    cfg = config(shards, speech_shards=str(speech))
    store, clock, _ = open_store(cfg, run(cfg))
    assert [c.record.has_video for c in store.clips] == [True] * 6 + [False] * 2
    paired = ItemComposer(store, clock, cfg.window, SpelledWords(), cfg.data, 0)
    speech_too = ItemComposer(store, clock, cfg.window, SpelledWords(), cfg.data, 0, with_video=False)
    assert all(paired.item(p).place.clip.record.has_video for p in range(50))
    assert any(not speech_too.item(p).place.clip.record.has_video for p in range(50))


def test_words_said_again_are_encoded_too_but_no_held_out_sentence(shards):
    write_tar(shards / "x-train-00000.tar", [sample(n, speaker="s1", text=t, words=[
        {"w": w, "start": a, "end": b} for w, a, b in zip(t.split(), (0.2, 0.8), (0.8, 1.4), strict=True)])
        for n, t in enumerate(("red one", "blue two", "green one"))])
    cfg = config(shards, respoken=RespokenConfig(times=20, switch_p=1.0))
    folder = run(cfg)
    store, _, _ = open_store(cfg, folder)
    records = [c.record for c in store.clips]
    assert [r.has_video for r in records] == [True] * 6 + [False] * 60  # of the second shard nothing but "red two"
    said = {r.text for r in records[6:]}
    assert {"red one", "blue two", "green two"} <= said and "red two" not in said  # which is the held-out sentence
    assert {r.speaker for r in records[6:]} == {f"s1 x {speed}" for speed in (0.92, 0.96, 1, 1.04, 1.08)}
    assert [r.recorded for r in records] == [r.has_video for r in records]
    assert store.sets == {"recorded": (0, 2), "again": (2, 4)}
    assert set(cfg.data.weights(store.sets, 0.5)) == set(store.sets)
    kept = {p.name: p.stat().st_mtime_ns for p in (folder / "latents" / "train").glob("*.tar")}
    cfg.data.respoken.share = cfg.data.respoken.joint_share = 0.25  # which is the matter of training
    run(cfg)
    assert kept == {p.name: p.stat().st_mtime_ns for p in (folder / "latents" / "train").glob("*.tar")}
    cfg.data.respoken = RespokenConfig(times=10, switch_p=0.0)
    run(cfg)
    store, _, _ = open_store(cfg, folder)
    assert {c.record.text for c in list(store.clips)[6:]} == {"red one", "blue two", "green one"}
    longest = {}
    for sentences, pause_s in ((3, 0.0), (3, 1.0)):  # each is made anew
        cfg.data.respoken = RespokenConfig(times=10, switch_p=0.0, sentences=sentences, pause_s=pause_s)
        run(cfg)
        again = [c.record for c in list(open_store(cfg, folder)[0].clips)[6:]]
        assert max(len(r.text.split()) for r in again) == 6
        longest[pause_s] = max(r.seconds for r in again)
    assert longest[1.0] > longest[0.0]
    store, clock, _ = open_store(cfg, folder)
    heard = ItemComposer(store, clock, cfg.window, SpelledWords(), cfg.data, 0, with_video=False)
    assert sum(heard.item(p).group == "again" for p in range(1024)) == 512
    seen = ItemComposer(store, clock, cfg.window, SpelledWords(), cfg.data, 0)
    assert {seen.item(p).group for p in range(64)} == {"recorded"}
    both = ItemComposer(store, clock, cfg.window, SpelledWords(), cfg.data, 0, joint_share=0.25)
    assert sum(both.item(p).group == "again" for p in range(1024)) == 256
    cfg.data.respoken = RespokenConfig()
    run(cfg)
    assert len(open_store(cfg, folder)[0].clips) == 6


def test_words_said_again_make_no_share_of_damage_smaller_and_lend_no_damaged_words(shards, caplog):
    write_tar(shards / "x-val-00000.tar", [sample(6, text="six", words=[{"w": "six", "start": 0.2, "end": 1.4}])], 6)
    late = sample(9, words=[{"w": "red", "start": 0.2, "end": 0.8}, {"w": "nine", "start": 3.0, "end": 3.5}])
    write_tar(shards / "x-train-00002.tar", [{**sample(8), "json": b"{"}, late, sample(10)], 8)
    cfg = config(shards, respoken=RespokenConfig(times=4), max_bad_share=0.1)
    with pytest.raises(DataError, match="1 of 9 samples are damaged"):
        run(cfg)
    assert sum("clip008" in line for line in caplog.text.splitlines()) == 3  # fitting codecs, encoding, in the end
    cfg.data.max_bad_share = 0.2
    store, _, _ = open_store(cfg, run(cfg))
    assert sum(not c.record.recorded for c in store.clips) == 4 * 7
    assert not any("nine" in c.record.text for c in store.clips if not c.record.recorded)


def test_in_a_mixture_words_said_again_count_to_their_set(shards):
    other = shards.parent / "other"
    other.mkdir()
    write_tar(other / "y-train-00000.tar", [sample(11, text="one", words=[{"w": "one", "start": 0.2, "end": 1.4}])], 11)
    cfg = config(shards, respoken=RespokenConfig(times=2))
    cfg.data.shards = None
    cfg.data.mix = {"other": {"shards": str(other)}, "talk": {"shards": str(shards), "weight": 3}}
    store, _, _ = open_store(cfg, run(cfg))
    assert store.sets == {"other": (0, 2), "talk": (2, 6)}
    assert cfg.data.weights(store.sets, 0.5) == {"other": 1, "talk": 3}
    assert [c.record.text for c in store.clips][:3] == ["one"] * 3


def test_no_validation_and_no_shards_are_refused_with_the_remedy(shards):
    (shards / "x-val-00000.tar").unlink()
    with pytest.raises(DataError, match="no val shard.*data.val_shards"):
        run(config(shards))
    cfg = config(shards)
    cfg.data.shards = str(shards.parent / "nowhere")
    with pytest.raises(DataError, match="does not exist"):
        run(cfg)
    cfg.data.shards = None
    with pytest.raises(InputError, match="stage=prepare"):
        run(cfg)


def test_a_full_disk_is_told_and_loses_nothing(shards, monkeypatch):
    cfg = config(shards)
    folder = run(cfg)
    kept = (folder / "latents" / "train" / "latents-00000.tar").read_bytes()
    (folder / "latents" / "train" / "latents-00001.json").unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datamodules.latent_writer.os.fsync", full)
    with pytest.raises(InputError, match="No space left on device; free some space.*finished shards are kept"):
        run(cfg)
    assert (folder / "latents" / "train" / "latents-00000.tar").read_bytes() == kept
    assert not list((folder / "latents" / "train").glob("*.part"))


class PassThrough:
    """A codec of known values: video latent = mean of its frames' red, audio latent = mean of its samples."""

    channels, spatial_stride, temporal_stride, latent_rate, sample_rate, lookahead = 1, 8, 4, 25, RATE, 0

    def encode(self, x):
        if x.ndim == 5:
            red = x[:, :, 0].mean((2, 3))
            return torch.cat([red[:, :1], red[:, 1:].unflatten(1, (-1, 4)).mean(2)], 1)[:, None, :, None, None]
        return x.unflatten(1, (-1, 640)).mean(2)[..., None] if x.shape[1] % 640 == 0 else self.encode(
            x[:, :x.shape[1] // 640 * 640])


def test_past_its_end_a_clip_is_quiet_and_awkward_rates_have_their_surplus():
    clock = ChunkClock(24, 33, 25, RATE)
    frames = torch.arange(48).to(torch.uint8).mul(5)[:, None, None, None].expand(48, 3, 32, 32)
    wave = torch.cat([torch.ones(RATE), torch.full((RATE,), 0.01)])  # a word of one second, one second of quiet
    clip = Clip("k", frames, wave, RATE, 24.0, [], {"words": []})
    clip.words = [type("W", (), {"text": "red", "start": 0.0, "end": 1.0})()]
    encoder = ClipEncoder(PassThrough(), PassThrough(), clock, 32, phase_offsets(clock, 2), "float32")
    record, tensors = encoder.encode(clip)
    assert [p.offset for p in record.phases] == [0, 16]
    for p, phase in enumerate(record.phases):
        assert len(tensors[f"audio.{p}"]) == phase.latents == clock.audio_start(phase.chunks - 1) + 35
        begin = phase.offset / 24
        times = begin + np.arange(phase.latents) / 25
        quiet = tensors[f"audio.{p}"][times > 1.05]
        assert np.abs(quiet).max() <= 0.011  # the real quiet goes on past the clip's end
    last = tensors["video.0"][-1] * 255 / 5
    assert last.min() >= 26 and last.max() <= 47  # frames after the word, to and fro


def test_conforming_sizes_and_rates():
    frames = torch.arange(30).to(torch.uint8)[:, None, None, None].expand(30, 3, 40, 60).contiguous()
    assert fit_frames(frames, 32).shape == (30, 3, 32, 32) and (fit_frames(frames, 32)[7] == 7).all()
    assert fit_rate(frames, 30, 15)[:, 0, 0, 0].tolist() == list(range(1, 30, 2))
    assert len(fit_rate(frames, 30, 25)) == 25
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(44100) / 44100)
    moved = fit_wave(tone, 44100, RATE)
    truth = torch.sin(2 * torch.pi * 440 * torch.arange(RATE) / RATE)
    assert len(moved) == RATE and (moved - truth)[200:-200].abs().max() < 0.01
    still = extend_frames(frames, 29 / 30, 30, 35)
    assert still[29:, 0, 0, 0].tolist() == [29] * 6  # no real quiet: the last picture stays
    back = extend_frames(frames, 0.5, 30, 42)[30:, 0, 0, 0]
    assert back.tolist() == [*range(28, 18, -1), 20, 21]  # real quiet from .62 s on, played to and fro
    noise = extend_wave(torch.ones(100), 0.006, RATE, 1000, 3)[100:]
    assert 5e-4 < noise.std() < 2e-3
