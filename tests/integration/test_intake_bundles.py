"""Many small recordings: kept in bundles, gone on with after a stop, in a memory that does not grow with them."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from datamodules.intake import bundle, file_bundle, production
from datamodules.intake.config import IntakeConfig
from datamodules.intake.sample import Sample
from datamodules.intake.sources import Source
from tests.intake_fakes import FakeModels, fake_options, rows, small_files, take_nothing


@pytest.fixture(autouse=True)
def fake_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(production, "open_models", FakeModels)


def test_small_files_are_made_and_kept_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(production, "take_speech", take_nothing)
    small_files(tmp_path / "in", 600)
    (tmp_path / "in" / "s000" / "00003.json").write_text('{"text": "hello", "speaker": "ann"}')
    cfg = fake_options(tmp_path)
    seen: list[str] = []

    def run() -> list[tuple[str, int]]:
        """(bundle, recordings) that were made, not kept."""
        made: list[tuple[str, int]] = []
        production.produce("speech", cfg, tmp_path,
                           report=lambda r, new: made.append((r.key, r.recordings)) if new else None)
        seen[:] = [c["key"] for c in rows(tmp_path, "clips.jsonl")]
        return made

    first = run()
    assert len(first) < 20 and max(n for _, n in first) <= bundle.UTTERANCES and sum(n for _, n in first) == 600
    assert len(list((tmp_path / "sources").iterdir())) == 2 * len(first)
    assert seen == [f"s{n // 50:03d}-{n:05d}-0000" for n in range(600) if n % 10 != 7]
    assert {c["speaker"] for c in rows(tmp_path, "clips.jsonl")} == {"ann", *(f"s{n:03d}" for n in range(12))}
    assert run() == []
    (tmp_path / "in" / "s005" / "00270.txt").write_text("another text")
    assert len(run()) == 1
    (tmp_path / "in" / "s005" / "00270a.mp3").write_bytes(b"x")
    (tmp_path / "in" / "s006" / "00333.mp3").unlink()
    again = run()
    assert 1 <= len(again) <= 4 and "s005-00270a-0000" in seen and "s006-00333-0000" not in seen and len(seen) == 540
    (tmp_path / "in" / "s005" / "long.mp3").write_bytes(bytes(file_bundle.SMALL_BYTES + 1))
    assert run() == [("s005-long", 1)]


def test_a_stop_in_a_bundle_costs_that_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    limit = [250]

    def take(source: Source, cfg: IntakeConfig, models: object) -> Iterator[Sample]:
        if len(heard) == limit[0]:
            raise KeyboardInterrupt
        heard.append(source.key)
        return take_nothing(source, cfg, models)

    monkeypatch.setattr(production, "take_speech", take)
    small_files(tmp_path / "in", 600)
    with pytest.raises(KeyboardInterrupt):
        production.produce("speech", fake_options(tmp_path), tmp_path)
    kept = [json.loads(p.read_text()) for p in (tmp_path / "sources").glob("*.json")]
    done = sum(r["recordings"] for r in kept)
    assert 250 - bundle.UTTERANCES <= done < 250
    limit[0] = -1
    production.produce("speech", fake_options(tmp_path), tmp_path)
    assert len(heard) == 250 + 600 - done and set(heard[250:]) == set(heard) - set(heard[:done])
    clips = [c["key"] for c in rows(tmp_path, "clips.jsonl")]
    assert len(clips) == len(set(clips)) == 540


def test_memory_does_not_grow_with_the_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(production, "take_speech", take_nothing)
    monkeypatch.setattr(file_bundle, "UTTERANCES", 20)

    def peak(name: str, count: int) -> int:
        small_files(tmp_path / name, count)
        cfg = fake_options(tmp_path, input=str(tmp_path / name), shard_clips=20)
        tracemalloc.start()
        try:  # what is not referred to any more goes at once, not when Python sees fit
            production.produce("speech", cfg, tmp_path / f"{name}-out", report=clear, packed=clear)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def clear(*_: object) -> None:
        gc.collect()

    peak("warm", 20)
    gc.collect()
    gc.freeze()
    try:
        few = peak("few", 40)
        # The lesser of two: a table of the interpreter's own may be enlarged meanwhile.
        grown = min(peak(f"many{i}", 160) - few for i in range(2))
    finally:
        gc.unfreeze()
    assert grown < 120 * 500  # bytes; records in memory would be 3,000 for each clip
