"""``docs/requeue.md``: after which trouble a job ended as if there had been none, by which code."""

from __future__ import annotations

from pathlib import Path

HEAD = """# Trouble and requeue

Every line is a test of `tests/slurm` that passed on a real Slurm with two nodes: the rollout of the tiny preset, one
rank on each node, has this trouble in its middle, is queued again by itself, and ends with checkpoints (weights,
optimisers, averages, stream memories, data cursor) and metrics equal bit for bit to those of the uninterrupted job, and
with one MLflow run, FINISHED, that holds every step once. `make test-all` writes this file, with the commit's date and
name (`+`: with changes of its own).

| trouble | passed |
|---|---|
"""


def write_trouble_table(path: Path, troubles: dict[str, str]) -> None:
    """One line for every trouble; ``troubles``: its name -> date and commit."""
    lines = [f"| {trouble} | {passed} |" for trouble, passed in sorted(troubles.items())]
    path.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
