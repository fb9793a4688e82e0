"""Secrets are hidden in everything that a run writes down, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from callbacks.redaction import redact, redact_code
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
    ("cannot fetch with hf_abcdefghijklmnopqrstuvwx: 401", "cannot fetch with ***: 401"),
    ("AKIAABCDEFGHIJKLMNOP ghp_aaaaaaaaaaaaaaaaaaaaaaaa", "*** ***"),
    ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
    ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/services/***"),
    ("a\n-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nb",
     "a\n-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----\nb"),
    ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQO\n-----END PGP PRIVATE KEY BLOCK-----",
     "-----BEGIN PGP PRIVATE KEY BLOCK-----***-----END PGP PRIVATE KEY BLOCK-----"),
    ("commit 30299eb0029c143b5d892e8166db31afc46c37a5 task-1 risk-averse-and-very-long-words",
     "commit 30299eb0029c143b5d892e8166db31afc46c37a5 task-1 risk-averse-and-very-long-words"),
    ("transcript=my secret: a token of love", "transcript=my secret: a token of love")])
def test_what_is_hidden(given: str, wanted: str) -> None:
    assert redact(given) == wanted == redact(wanted)


@pytest.mark.parametrize(("given", "wanted"), [
    ('api_key = "k1 k2"', 'api_key = "***"'), ("+    'password': 'p'", "+    'password': '***'"),
    ('TOKEN: str = "t"', 'TOKEN: str = "***"'), ("db_password: hunter2", "db_password: ***"),
    ("export HF_TOKEN = abc1", "export HF_TOKEN = ***"),
    ('os.environ["HF_TOKEN"] = "t"', 'os.environ["HF_TOKEN"] = "***"'),
    ("next_token: Tensor", "next_token: Tensor"), ("token = tokens[0]", "token = tokens[0]"),
    ("token: int = 3  # per word", "token: int = 3  # per word"), ('secret = ""', 'secret = ""')])
def test_what_is_hidden_in_code(given: str, wanted: str) -> None:
    assert redact_code(given) == wanted == redact_code(wanted)


def test_no_secret_in_a_runs_folder_or_printed_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    for module in ("provenance", "run_directory"):  # this file's own text is none of the run's
        monkeypatch.setattr(f"pipelines.{module}.CHECKOUT", tmp_path)
    cfg = compose(parse([f"root={tmp_path}", "preset=tiny", URI]))
    assert "hunter2" in cfg.callbacks.tracking.uri
    folder = RunDirectory.of(cfg).open("teacher", cfg, ["run.py", "stage=teacher", URI, "HF_TOKEN=hunter2"])
    written = "".join(path.read_text() for path in folder.iterdir())
    assert "hunter2" not in written + to_yaml(cfg) and "tracking.site" in written
    assert json.loads((folder / "provenance.json").read_text())["command"][3] == "HF_TOKEN=***"
