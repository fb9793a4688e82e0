"""``stage=evaluate protocol=long`` on a prepared tiny run with a random character: all rows, all variants."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.evaluating import long, long_figures, short
from pipelines.evaluating.words import bigram_of
from pipelines.run_directory import RunDirectory
from pipelines.stages import encode, evaluate, prepare
from streamchar.evaluation.recogniser import PocketsphinxBigram
from streamchar.evaluation.stream_words import StreamWords, stream_words
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
    languages: list[list[str]] = []

    def language(known: list[str], texts: list[str]) -> PocketsphinxBigram:
        languages.append(known)
        return bigram_of(known, texts)

    def score(*args: Any) -> StreamWords:
        return replace(stream_words(*args), thirds=(0.25, 0.5, 0.75))

    monkeypatch.setattr(long, "bigram_of", language)
    monkeypatch.setattr(long_figures, "stream_words", score)
    evaluate.run(cfg, directory)
    assert any(len(text.split()) > 30 for text in languages[0])  # several clips' sentences in a row
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
    for name in ("word errors", "first window", "last window", "never heard", "repeated words", "inserted words"):
        assert {"real", "codec", "student", "no_sink", "open_loop"} <= set(values[name]), name
        assert all(v is not None for v in values[name].values()), name
    assert values["wrong in the first third of a chunk"]["real"] == 25
    assert values["wrong in the last third of a chunk"]["real"] == 75
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
