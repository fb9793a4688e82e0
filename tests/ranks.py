"""Small trainings in processes of their own, forked from a server that has imported the packages once: to import them
takes longer than such a training does."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
import traceback
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from callbacks import checkpoint_files as files

LIMIT_S = 1800
"""Of one training, for a hang: it works for some seconds, which are minutes on a busy machine."""
SERVED = ["tests.small_stage", "deepspeed"]


def train_apart(root: Path, stage: str, steps: int, *options: str) -> dict[str, Any]:
    """Train ``tests/small_stage.py`` to ``steps``, or go on to there, as ``devices=N`` of the options says.

    Returns the newest checkpoint, and under ``said`` what was printed.
    """
    settings = dict(option.split("=", 1) for option in options)
    count = int(settings.get("devices", 1))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SERVED)
    root.mkdir(parents=True, exist_ok=True)
    arguments, port = [str(root), stage, f"steps={steps}", *options], free_port()
    log = root / "output.txt"
    log.unlink(missing_ok=True)
    ranks = [context.Process(target=_train, args=(rank, count, port, arguments, log)) for rank in range(count)]
    for rank in ranks:
        rank.start()
    codes = _codes(ranks)
    said = log.read_text()
    assert codes == [0] * count, f"exit codes {codes}: {said[-6000:]}"
    path = files.newest_complete(root / "run" / stage / "checkpoints")
    assert path is not None and files.step_of(path) == steps
    return files.load(path) | {"said": said}


def _codes(ranks: list[BaseProcess]) -> list[int | None]:
    """Exit codes of all ranks; where one fails or none ends in time, the others are ended too."""
    latest = time.monotonic() + LIMIT_S
    while any(rank.exitcode is None for rank in ranks):
        if any(rank.exitcode for rank in ranks) or time.monotonic() > latest:
            for rank in ranks:
                rank.kill()
        for rank in ranks:
            rank.join(0.1)
    return [rank.exitcode for rank in ranks]


def _train(rank: int, count: int, port: int, arguments: list[str], log: Path) -> None:
    """One process of them."""
    with log.open("ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if count > 1:
        become(rank, port)
    from tests.small_stage import main

    try:
        main(arguments)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()


def become(rank: int, port: int) -> None:
    """Make this process a rank, as a launcher would have started it."""
    from lightning.pytorch.utilities import rank_zero_only

    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    rank_zero_only.rank = rank  # read from the environment when it was imported


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
