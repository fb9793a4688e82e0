"""``docs/strategies.md``: which stage was trained, gone on with and exported under which strategy, by which code."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.small_stage import STAGES, STRATEGIES

Cells = dict[str, str]
"""``stage/strategy/kind`` -> ``date commit`` of its latest run, after ``failed`` where it did."""
KINDS = ("train", "resume", "export")
NOT_RUN = "not run"

HEAD = """# Stages and strategies

Every cell is a test of `tests/integration/test_strategies.py` that passed (`failed` where it did not): tiny models on a
CPU, two processes (`single`: one with the samples of both), students of `dmd` and `rollout` with a guided condition.

- **train**: after 4 steps weights, optimiser states and averages are those of `ddp`, bit for bit under FSDP2, to
  rounding elsewhere (`ddp` itself: those of `single`). Under ZeRO-3 every matrix is taken apart, small as they are.
- **resume**: other processes go on from there to step 6 and end as in one go: `single` and `ddp` with the bits of
  their own, FSDP2 with those of `ddp`, ZeRO to rounding (`rollout` also with the bits of its own, in a test apart).
- **export**: `stage=export` makes a model of that checkpoint and `streamchar.hub.from_pretrained` loads it: it has the
  averaged weights of the checkpoint bit for bit, and answers as the averaged model in the memory of the training
  processes did (1e-5). An orchestrator is exported with a teacher that has not learnt; codecs are fitted on noise.

`make test-all` writes this file, `python -m pytest --resume tests/integration/test_strategies.py -k dmd-zero-3` a part
of it: a cell that is not run again keeps its last result. Each has a commit's date and name (`+`: and changes of its
own): `git log COMMIT.. -- lightning_modules pipelines/strategies streamchar/distributed` tells what has changed since.

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
    return {f"{row[0]}/{row[1]}/{kind}": cell for row in rows[1:] for kind, cell in zip(KINDS, row[2:], strict=True)
            if cell != NOT_RUN}


def write_table(path: Path, cells: Cells) -> None:
    """A row for every stage and strategy; what has not run says so."""
    lines = ["| stage | strategy | " + " | ".join(KINDS) + " |", "|---" * (2 + len(KINDS)) + "|"]
    for stage in STAGES:
        for name in STRATEGIES:
            row = [cells.get(f"{stage}/{name}/{kind}", NOT_RUN) for kind in KINDS]
            lines.append(f"| {stage} | {name} | " + " | ".join(row) + " |")
    path.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
