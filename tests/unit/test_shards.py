"""Shards: names, index, writer, and the reader's quarantine for every kind of damage."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from datamodules import clip as clip_module
from datamodules.clip import decode_clip
from datamodules.clip_reader import iterate_shard, read_clips
from datamodules.media import encode_mp4, encode_wav
from datamodules.quarantine import Quarantine
from datamodules.shard_writer import ShardWriter
from datamodules.shards import ShardIndex, expand_shards, index_shards, sha256_of, split_shards
from streamchar.errors import DataError, InputError

GRID = Path(__file__).parents[3] / "shared" / "data" / "grid"
RATE = 16000


def sample(seconds: float = 1.0, **changes: object) -> dict[str, bytes]:
    """A good sample's files; a change of None drops the file or field."""
    fps, frames = 25, round(seconds * 25)
    picture = np.linspace(0, 255, frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    wave = 0.1 * np.sin(np.arange(round(seconds * RATE)) * 0.05)
    meta = {"text": "bin blue", "speaker": "s", "fps": fps, "frames": frames, "sample_rate": RATE,
            "words": [{"w": "sil", "start": 0, "end": 0.2}, {"w": "bin", "start": 0.2, "end": 0.5},
                      {"w": "blue", "start": 0.5, "end": 0.9}]}
    meta.update({k: v for k, v in changes.items() if k not in ("mp4", "wav", "json")})
    files = {"mp4": encode_mp4(picture, fps, 12), "wav": encode_wav(wave, RATE), "json": json.dumps(meta).encode()}
    files.update({k: v for k, v in changes.items() if k in files and v is not None})  # type: ignore[misc]
    return {k: v for k, v in files.items() if k not in changes or changes[k] is not None}


def write(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    with ShardWriter(path) as writer:
        for key, files in samples.items():
            writer.write(key, files, 1.0)
    return path


def test_expand_folder_glob_braces_and_split(tmp_path: Path) -> None:
    names = ["a-train-00000.tar", "a-train-00001.tar", "a-val-00000.tar"]
    for name in names:
        write(tmp_path / name, {"k": sample()})
    assert [p.name for p in expand_shards(tmp_path)] == names
    assert [p.name for p in expand_shards(str(tmp_path / "a-train-*.tar"))] == names[:2]
    assert [p.name for p in expand_shards(f"{tmp_path}/a-train-{{00000..00001}}.tar")] == names[:2]
    assert [p.name for p in expand_shards([tmp_path / names[2], tmp_path])] == names
    train, val = split_shards(expand_shards(tmp_path))
    assert ([p.name for p in train], [p.name for p in val]) == (names[:2], names[2:])


@pytest.mark.parametrize("given", ["missing", "missing-{00..01}.tar", []])
def test_missing_shards_name_the_remedy(tmp_path: Path, given: object) -> None:
    with pytest.raises(DataError, match="data.shards"):
        expand_shards(given, base=tmp_path)  # type: ignore[arg-type]


def test_folder_without_tars_and_empty_shards(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no .tar file"):
        expand_shards(tmp_path)
    empty = write(tmp_path / "x-train-0.tar", {})
    with pytest.raises(DataError, match="no sample"):
        index_shards([empty])
    with pytest.raises(DataError, match="no usable sample"):
        list(read_clips([empty], Quarantine()))


def test_index_is_computed_elsewhere_and_reused(tmp_path: Path) -> None:
    shards, cache = tmp_path / "data", tmp_path / "ours" / "index.json"
    shards.mkdir()
    path = write(shards / "x-train-0.tar", {"a": sample(), "b": sample(2.0)})
    index = index_shards([path], cache)
    entry = index.entries[path.name]
    assert (entry.samples, entry.seconds, entry.sha256) == (2, 3.0, sha256_of(path))
    assert [p.name for p in shards.iterdir()] == [path.name]
    assert ShardIndex.load(cache).entries == index.entries
    write(path, {"a": sample()})
    assert index_shards([path], cache).samples == 1


def test_writer_is_atomic_and_reproducible(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.tar", {"a": sample()}), write(tmp_path / "2.tar", {"a": sample()})
    assert one.read_bytes() == two.read_bytes()
    before = one.read_bytes()
    with pytest.raises(OSError), ShardWriter(one) as writer:  # noqa: PT012
        writer.write("b", sample())
        raise OSError(28, "No space left on device")
    assert one.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.tar", "2.tar"]
    with pytest.raises(InputError, match="without '.'"), ShardWriter(tmp_path / "3.tar") as writer:
        writer.write("a.b", sample())


def test_clip_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", {"a": sample(), "speech": sample(mp4=None)})
    clip, speech = read_clips([path], Quarantine(), fps=25, sample_rate=8000)
    assert clip.frames is not None and clip.frames.shape == (25, 3, 32, 32) and clip.frames.dtype == torch.uint8
    assert clip.wave.shape == (8000,) and clip.sample_rate == 8000 and clip.seconds == 1.0
    assert [w.text for w in clip.words] == ["bin", "blue"] and clip.look == "s"
    assert speech.frames is None and speech.seconds == pytest.approx(1.0)


def test_a_header_that_promises_fewer_pictures_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.tar", {"a": sample()})
    (whole,) = read_clips([path], Quarantine())
    monkeypatch.setattr(clip_module, "MOST_ROOM", 3)
    (grown,) = read_clips([path], Quarantine())
    assert grown.frames is not None and whole.frames is not None and torch.equal(grown.frames, whole.frames)
    assert whole.frames.float().mean((1, 2, 3)).diff().min() > 5  # every picture is brighter than the one before


@pytest.mark.parametrize(("kind", "resampled"), [("mono", 0), ("stereo", 1), ("wav", 1)])
def test_sound_that_is_mono_already_is_what_the_resampler_gives(kind: str, resampled: int,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    wave = 0.3 * np.random.default_rng(0).standard_normal((2, 4096)).clip(-1, 1)
    body = encode_wav(wave[0], RATE) if kind == "wav" else aac(wave[:1 if kind == "mono" else 2], kind)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(io.BytesIO(body)) as box:
        frames = [out for frame in [*box.decode(audio=0), None] for out in resampler.resample(frame)]
    made: list[object] = []
    real = av.AudioResampler
    monkeypatch.setattr(av, "AudioResampler", lambda **options: made.append(options) or real(**options))
    clip = decode_clip("a", {"ogg": body, "json": sample()["json"]})
    np.testing.assert_array_equal(clip.wave.numpy(), np.concatenate([f.to_ndarray().reshape(-1) for f in frames]))
    assert len(made) == resampled


def aac(wave: np.ndarray, layout: str) -> bytes:
    medium = io.BytesIO()
    with av.open(medium, "w", format="matroska") as box:
        stream = box.add_stream("aac", rate=RATE, layout=layout)
        piece = av.AudioFrame.from_ndarray(wave.astype(np.float32), format="fltp", layout=layout)
        piece.rate = RATE
        box.mux(stream.encode(piece))
        box.mux(stream.encode(None))
    return medium.getvalue()


DAMAGE = {
    "corrupt mp4": ({"mp4": b"\x00" * 500}, "cannot be decoded"),
    "no json": ({"json": None}, "no json"),
    "broken json": ({"json": b"{"}, "json unreadable"),
    "no sound": ({"wav": None}, "no sound"),
    "wrong fps": ({"fps": 30}, "wrong fps"),
    "nan words": ({"words": [{"w": "bin", "start": float("nan"), "end": 1}]}, "not finite"),
    "empty words": ({"words": []}, "words empty"),
    "words missing": ({"words": None}, "words missing"),
    "reversed words": ({"words": [{"w": "bin", "start": 0.9, "end": 0.2}]}, "out of order"),
    "short sound": ({"wav": encode_wav(np.zeros(1000), RATE)}, "sound is 0.06 s"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_sample_is_quarantined(tmp_path: Path, kind: str) -> None:
    changes, reason = DAMAGE[kind]
    path = write(tmp_path / "x.tar", {"a": sample(), "bad": sample(**changes), "c": sample()})
    listed = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(listed, max_rate=0.5)
    assert [c.key for c in read_clips([path], quarantine)] == ["a", "c"]
    row = json.loads(listed.read_text())
    assert (row["key"], row["file"]) == ("bad", str(path)) and reason in row["reason"]
    assert (quarantine.good, quarantine.damaged) == (2, 1)


def test_wanted_rate_differs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", {"a": sample()})
    with pytest.raises(DataError, match="runs at 25, expected 24"):
        list(read_clips([path], Quarantine(), fps=24))


@pytest.mark.parametrize("where", [0.3, 0.55, 0.9])
def test_shard_cut_in_the_middle_keeps_what_precedes(tmp_path: Path, where: float) -> None:
    path = write(tmp_path / "x.tar", {f"k{i}": sample() for i in range(6)})
    body = path.read_bytes()
    path.write_bytes(body[: int(len(body) * where)])
    quarantine = Quarantine(max_rate=0.6)
    kept = [c.key for c in read_clips([path], quarantine)]
    assert kept == [f"k{i}" for i in range(len(kept))] and len(kept) >= int(6 * where) - 1
    assert any("cut" in r["reason"] for r in quarantine.rows)
    with pytest.raises(DataError, match="cut"):
        list(iterate_shard(path))


def test_too_many_damaged_samples_stop_with_the_list(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", {f"k{i}": sample(json=None) if i % 2 else sample() for i in range(8)})
    with pytest.raises(DataError, match="no json") as error:
        list(read_clips([path], Quarantine(max_rate=0.2, grace=1)))
    assert "k1" in str(error.value) and "max_rate=0.2" in str(error.value)


def test_a_file_that_is_no_tar(tmp_path: Path) -> None:
    path = tmp_path / "x-train-0.tar"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(DataError, match="x-train-0.tar"):
        list(read_clips([path], Quarantine()))


def test_webdataset_reads_our_shards(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    path = write(tmp_path / "x.tar", {"a": sample(), "b": sample()})
    rows = list(wds.WebDataset(str(path), shardshuffle=False))
    assert [r["__key__"] for r in rows] == ["a", "b"] and {"mp4", "wav", "json"} <= set(rows[0])
    with tarfile.open(path) as tar:
        assert tar.getnames()[0] == "a.mp4"


@pytest.mark.skipif(not GRID.is_dir(), reason="../shared/data/grid is not here")
def test_grid_shards_load_unchanged(tmp_path: Path) -> None:
    train, val = split_shards(expand_shards(GRID))
    assert (len(train), len(val)) == (9, 1)
    index = index_shards(val, tmp_path / "index.json")
    assert index.samples == 50 and index.seconds == pytest.approx(150, abs=1)
    quarantine = Quarantine()
    clips = list(read_clips(val, quarantine, fps=25, sample_rate=RATE))
    assert len(clips) == 50 and quarantine.damaged == 0
    for clip in clips:
        assert clip.frames is not None and clip.frames.shape[1:] == (3, 160, 160)
        assert len(clip.wave) == len(clip.frames) * 640 and len(clip.words) == 6
