"""``docs/requeue.md``: after which trouble a job ended as if there had been none, by which code."""

from __future__ import annotations

from pathlib import Path

HEAD = """# Trouble and requeue

Every line is a test of `tests/slurm` on a real Slurm with two nodes (`failed` where it did not pass). *The same* means:
the rollout of the tiny preset, one rank on each node, has this trouble in its middle, is queued again by itself, and
ends with checkpoints (weights, optimisers, averages, stream memories, data cursor) and metrics equal bit for bit to
those of the uninterrupted job, and with one MLflow run, FINISHED, that holds every step once. `make test-all` writes
this file; a line that is not run again keeps its last result, with the commit's date and name (`+`: with changes of its
own).

| trouble | what follows | passed |
|---|---|---|
"""
SAME = "the same"

Troubles = dict[tuple[str, str], str]
"""(trouble, what follows) -> date and commit, after ``failed`` where it did."""


def read_trouble_table(path: Path) -> Troubles:
    """The lines that :func:`write_trouble_table` wrote; none where there is no file, or one of another form."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("| ")]
    return {(row[0], row[1]): row[2] for row in rows[1:] if len(row) == 3}


def write_trouble_table(path: Path, troubles: Troubles) -> None:
    """One line for every trouble, those first that leave the run the same."""
    order = sorted(troubles, key=lambda key: (key[1] != SAME, key))
    lines = [f"| {trouble} | {follows} | {troubles[trouble, follows]} |" for trouble, follows in order]
    path.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
