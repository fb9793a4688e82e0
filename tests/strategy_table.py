"""``docs/strategies.md``: which stage was trained, gone on with and exported under which strategy, by which code."""

from __future__ import annotations

import subprocess
from pathlib import Path

Cells = dict[str, str]
"""``stage/strategy`` -> ``date commit`` of its latest run, after ``failed`` where it did."""
NOT_RUN = "not run"

HEAD = """# Stages and strategies

Every cell is a test of `tests/integration/test_strategies.py` that passed (`failed` where it did not): two processes on
a CPU train the stage with tiny models, are ended, go on, and must end with weights, optimiser states and averages of
DDP in one go (bit for bit under FSDP2, to rounding under ZeRO); the averaged weights must load as an export loads them.
`make test-all` writes this file, `python -m pytest --resume tests/integration/test_strategies.py -k CASE` a part of it:
a cell that is not run again keeps its last result. Each has a commit's date and name (`+`: and changes of its own), so
that `git log COMMIT.. -- lightning_modules pipelines/strategies streamchar/distributed` tells what has changed since.

"""


def stamp(root: Path) -> str:
    """Date and commit of now; the commit is marked where files differ from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, text=True, capture_output=True, check=True).stdout.strip()

    dirty = "+" if git("status", "--porcelain", "--", ":!docs/strategies.md", ":!docs/requeue.md") else ""
    return f"{git('log', '-1', '--format=%cs')} {git('rev-parse', '--short', 'HEAD')}{dirty}"


def read_table(path: Path) -> Cells:
    """The cells that :func:`write_table` wrote; none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("| ")]
    return {f"{row[0]}/{name}": cell for row in rows[1:] for name, cell in zip(rows[0][1:], row[1:], strict=True)
            if cell != NOT_RUN}


def write_table(path: Path, cells: Cells) -> None:
    """Rows are stages, columns strategies; what has not run says so."""
    stages = list(dict.fromkeys(key.split("/")[0] for key in cells))
    columns = list(dict.fromkeys(key.split("/")[1] for key in cells))
    lines = ["| stage | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for stage in stages:
        row = [cells.get(f"{stage}/{name}", NOT_RUN) for name in columns]
        lines.append(f"| {stage} | " + " | ".join(row) + " |")
    path.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
