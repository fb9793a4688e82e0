"""Secrets are hidden in everything that a run writes down, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from callbacks.redaction import redact
from pipelines.config.compose import compose, to_yaml
from pipelines.config.grammar import parse
from pipelines.run_directory import RunDirectory

URI = "callbacks.tracking.uri=https://me:hunter2@tracking.site:5000/x"


@pytest.mark.parametrize(("given", "wanted"), [
    (URI, "callbacks.tracking.uri=https://***@tracking.site:5000/x"),
    ("HF_TOKEN=hf_abc python run.py", "HF_TOKEN=*** python run.py"),
    ("--api-key='k1' --password=\"p\" token=t", "--api-key='***' --password=\"***\" token=***"),
    ("postgresql://u:p@db/mlflow failed", "postgresql://***@db/mlflow failed"),
    ("https://host/path?access_key=abc&x=1", "https://host/path?access_key=***&x=1"),
    ("tokenizer=spelled mail=a@b.c sqlite:////runs/mlflow.db", "tokenizer=spelled mail=a@b.c sqlite:////runs/mlflow.db"),
    ("transcript=my secret: a token of love", "transcript=my secret: a token of love")])
def test_what_is_hidden(given: str, wanted: str) -> None:
    assert redact(given) == wanted == redact(wanted)


def test_no_secret_in_a_runs_folder_or_printed_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    cfg = compose(parse([f"root={tmp_path}", "preset=tiny", URI]))
    assert "hunter2" in cfg.callbacks.tracking.uri
    folder = RunDirectory.of(cfg).open("teacher", cfg, ["run.py", "stage=teacher", URI, "HF_TOKEN=hunter2"])
    written = "".join(path.read_text() for path in folder.iterdir())
    assert "hunter2" not in written + to_yaml(cfg) and "tracking.site" in written
    assert json.loads((folder / "provenance.json").read_text())["command"][3] == "HF_TOKEN=***"
