"""What an evaluation holds at once, counted beforehand, and what it need not hold."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from pipelines import free_memory
from pipelines.evaluating import given, short
from pipelines.evaluating.cheats import add_cheats
from pipelines.evaluating.material import Rendering, Subject
from pipelines.evaluating.room import room_wanted
from pipelines.evaluating.short import Speaker, generate, with_seeds
from pipelines.evaluating.showing import SHOWN
from streamchar.clock import ChunkClock
from streamchar.errors import InputError
from streamchar.evaluation.config import EvaluateConfig
from streamchar.streaming.muxer import write_clip
from streamchar.streaming.reading import picture_bytes, read_clip
from tests.tiny_models import streams

CLOCK = ChunkClock(fps=25, chunk_frames=17, audio_rate=25, sample_rate=16000)
SIZE = 512
CLIP_BYTES = 3 * 25 * 3 * SIZE**2
"""Of three seconds of pictures."""


def chosen(clips: int, shard: Path) -> Any:
    record = SimpleNamespace(seconds=3.0, source=str(shard))
    clip = SimpleNamespace(record=record, video=lambda _: np.zeros((5, 16, 5, 64, 64), np.float16))
    return SimpleNamespace(clips=[clip] * clips)


def wanted(clips: int, shard: Path, columns: int = 1, **options: Any) -> float:
    """Clips of three seconds that fit, their latents (a tenth as large as pictures) included; no long stream."""
    asked = EvaluateConfig(**{"drift_s": 0.0, **options})
    return room_wanted(chosen(clips, shard), asked, columns, CLOCK, SIZE, 16) / CLIP_BYTES


def test_500_clips_of_512_pixels_are_counted_in_every_column(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    gone = wanted(500, shard)
    shard.write_bytes(b"")
    assert wanted(500, shard) - gone == pytest.approx(500)  # the recordings
    assert wanted(500, shard) == pytest.approx(3 * 500 + 16 + 2 * 500 * 0.1, rel=0.01)
    assert wanted(500, shard, columns=3) - wanted(500, shard) == pytest.approx(2 * 500 * 1.1, rel=0.01)
    assert wanted(500, shard, cheats=True) - wanted(500, shard) == pytest.approx(500)
    assert wanted(500, shard, seeds=3, new_sentences=100) == wanted(500, shard)  # their words alone are scored
    assert wanted(4, shard, seeds=3, new_sentences=2) - wanted(4, shard) == pytest.approx(3 * 6 - 4 + 2)
    assert wanted(4, shard, drift_s=60.0) - wanted(4, shard) == pytest.approx(2 * 20)  # until it is joined
    assert wanted(500, shard, seconds=1.5) == pytest.approx(2.5 * 500 + 8 + 1.5 * 500 * 0.1, rel=0.01)


def test_too_little_memory_is_told_with_both_figures_and_the_remedy(monkeypatch: pytest.MonkeyPatch,
                                                                    caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(free_memory, "free_memory", lambda: 2 << 30)
    with caplog.at_level(logging.INFO):
        free_memory.check_memory(1 << 30, "pictures", "choose fewer")
    assert "pictures: about 1 GiB at once, and 2 GiB of memory are free" in caplog.text
    with pytest.raises(InputError, match="about 3 GiB at once, and 2 GiB of memory are free; choose fewer"):
        free_memory.check_memory(3 << 30, "pictures", "choose fewer")


def test_a_control_groups_limit_is_found_at_any_level(tmp_path: Path) -> None:
    told = tmp_path / "cgroup"
    for lines, folder, name in (("0::/job/step\n", "job/step", "memory.max"),
                                ("9:cpu:/x\n4:memory:/job/step\n0::/\n", "memory/job/step", "memory.limit_in_bytes")):
        root = tmp_path / name
        (root / folder).mkdir(parents=True)
        told.write_text(lines)
        assert free_memory.cgroup_limit(root, told) is None
        (root / folder / name).write_text("max\n")
        assert free_memory.cgroup_limit(root, told) is None
        (root / folder).with_name(name).write_text(f"{8 << 30}\n")
        assert free_memory.cgroup_limit(root, told) == 8 << 30
        (root / folder / name).write_text(f"{4 << 30}\n")
        assert free_memory.cgroup_limit(root, told) == 4 << 30
    assert free_memory.cgroup_limit(tmp_path, tmp_path / "none") is None
    assert free_memory.free_memory() > 0


def test_pictures_that_nobody_scores_or_sees_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [Subject(f"clip{i}", "place red", None, {}, streams([["place", "red"]])) for i in range(SHOWN - 1)]
    new = Subject("new-000", "bin blue", None, {}, streams([["bin", "blue"]]), new=True)
    subjects = with_seeds([*clips, new], 2)

    def speak(character: object, batch: Any, *_: object) -> tuple[list[Rendering], None, list[list[str]]]:
        takes = [Rendering(np.ones((5, 8, 8, 3), np.uint8), np.ones(3200, np.float32), [2.0]) for _ in batch.words]
        return takes, None, [["chunk"] for _ in takes]

    monkeypatch.setattr(short, "speak", speak)
    with Progress(disable=True) as bar:
        generate(Speaker("student", None, None), subjects, 4.0, 0, bar)  # type: ignore[arg-type]
    takes = [s.renderings["student"] for s in subjects]
    assert all(len(t.sound) == 3200 and t.pointers == [2.0] for t in takes)
    assert [len(t.frames) for t in takes] == [5] * SHOWN + [0] * SHOWN
    assert [len(s.latents) for s in subjects] == [1] * (SHOWN - 1) + [0] * (SHOWN + 1)


def test_a_still_picture_is_held_once() -> None:
    real = Rendering(np.zeros((200, 8, 8, 3), np.uint8), np.zeros(128000, np.float32))
    subject = Subject("a", "place red", np.full((8, 8, 3), 7, np.uint8), {"real": real})
    add_cheats([subject], 0)
    still = subject.renderings["still"].frames
    assert still.shape == real.frames.shape and (still == 7).all() and np.shares_memory(still, subject.reference)


def test_given_clips_that_do_not_fit_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    frames, sound = np.zeros((30, 64, 48, 3), np.uint8), np.zeros(19200, np.float32)
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", frames, sound, 25, 16000)
    (tmp_path / "broken.mp4").write_bytes(b"none")
    assert picture_bytes(tmp_path / "a.mp4") == read_clip(tmp_path / "a.mp4", 16000)[0].nbytes
    monkeypatch.setattr(free_memory, "free_memory", lambda: 2 * 30 * 64 * 48 * 3 - 1)
    monkeypatch.setattr(given, "read_clip", None)
    with Progress(disable=True) as bar, pytest.raises(InputError, match="of the 3 clips .* in several folders"):
        given.given_clips(tmp_path, CLOCK, bar)
