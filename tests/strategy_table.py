"""``docs/strategies.md``: which stage was trained, gone on with and exported under which strategy, by which code."""

from __future__ import annotations

import subprocess
from pathlib import Path

Cells = dict[str, str]
"""``stage/strategy`` -> ``date commit`` of the run that passed."""

HEAD = """# Stages and strategies

Every cell is a test of `tests/integration/test_strategies.py` that passed: two processes on a CPU train the stage with
tiny models, are ended, go on, and must end with the weights, optimiser states and averages of DDP in one go (bit for
bit under FSDP2, to rounding under ZeRO); the averaged weights must load as an export loads them. `make test-all` writes
this file. Each cell has the commit's date and name (`+`: with changes of its own), so that `git log COMMIT.. --
lightning_modules pipelines/strategies streamchar/distributed` tells what has changed since.

"""


def stamp(root: Path) -> str:
    """Date and commit of now; the commit is marked where files differ from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, text=True, capture_output=True, check=True).stdout.strip()

    dirty = "+" if git("status", "--porcelain", "--", ":!docs/strategies.md", ":!docs/requeue.md") else ""
    return f"{git('log', '-1', '--format=%cs')} {git('rev-parse', '--short', 'HEAD')}{dirty}"


def write_table(path: Path, cells: Cells) -> None:
    """Rows are stages, columns strategies; what has not run says so."""
    stages = list(dict.fromkeys(key.split("/")[0] for key in cells))
    columns = list(dict.fromkeys(key.split("/")[1] for key in cells))
    lines = ["| stage | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for stage in stages:
        row = [cells.get(f"{stage}/{name}", "not run") for name in columns]
        lines.append(f"| {stage} | " + " | ".join(row) + " |")
    path.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
