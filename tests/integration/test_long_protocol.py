"""``stage=evaluate protocol=long`` on a prepared tiny run with a random character: all rows, all variants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.evaluating import short
from pipelines.run_directory import RunDirectory
from pipelines.stages import encode, evaluate, prepare
from tests.integration.test_evaluate_stage import random_character


def test_streams_with_and_without_sink_and_pointer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pocketsphinx")
    cfg = compose(parse(["stage=evaluate", "preset=tiny", "name=t", f"root={tmp_path}", "protocol=long",
                         "evaluate.streams=2", "evaluate.stream_s=6", "evaluate.windows=3", "evaluate.max_lag=4",
                         "evaluate.drift_s=0"]))
    directory = RunDirectory.of(cfg)
    for stage in ("prepare", "encode", "evaluate"):
        directory.stage(stage).mkdir(parents=True)
    prepare.run(cfg, directory)
    encode.run(cfg, directory)
    monkeypatch.setattr(short, "load_character", random_character)
    evaluate.run(cfg, directory)
    report = json.loads((directory.stage("evaluate") / "report.json").read_text())
    values = {row["name"]: row["values"] for row in report["rows"]}
    for name in ("last window from first", "sound longer than picture, frames", "stream memory, late over early",
                 "time per chunk, late over early", "lag, last window"):
        assert {"student", "no_sink", "open_loop"} <= set(values[name]), name
    assert all(abs(v) <= 1 for v in values["sound longer than picture, frames"].values())
    assert all(v == 1 for v in values["stream memory, late over early"].values())
    rows = {row["name"]: row for row in report["rows"]}
    assert "StreamMemory" in rows["stream memory, late over early"]["note"]
    assert len(report["curves"]["distance to the first window over time (s)"]["student"]) == 2  # all three windows
    # clips one after another go the same way as streams; no column loses a stream
    for name in ("word errors", "first window", "last window", "wrong in the first third of a chunk", "never heard",
                 "repeated words", "inserted words"):
        assert {"real", "codec", "student", "no_sink", "open_loop"} <= set(values[name]), name
        assert all(v is not None for v in values[name].values()), name
    assert values["never heard"]["real"] < values["never heard"]["open_loop"]
    assert values["word errors"]["real"] < min(values["word errors"]["baseline"],
                                               values["word errors of noise"]["baseline"])
    assert any("come again" in note for note in report["notes"])  # the tiny run holds few clips
    aligned = rows["against alignment of its own sound, words"]
    assert aligned["values"]["student"] is not None or "0 of 2 streams could be aligned" in aligned["note"]
    # the open loop passes words at the training set's rate, whatever is said
    assert values["words due"]["open_loop"] >= 1 and values["never heard"]["open_loop"] > 50
    videos = report["clips"][0]["videos"]
    assert set(videos) == {"student", "no_sink", "open_loop"}
    assert all((directory.stage("evaluate") / path).is_file() for path in videos.values())
