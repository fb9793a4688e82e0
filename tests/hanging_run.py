"""``pipelines/run.py`` as a Slurm job whose last rank hangs for ever in its eighth step, in the job's first life."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from lightning_modules.rollout_module import RolloutModule
from pipelines import run

HANGS_AT = 7


def main() -> int:
    """Run the command line; its exit code."""
    step = RolloutModule.training_step

    def hanging(self: RolloutModule, *batch: Any) -> None:
        if self.global_rank == self.trainer.world_size - 1 and self.trainer.global_step == HANGS_AT:
            threading.Event().wait()
        step(self, *batch)

    if "SLURM_RESTART_COUNT" not in os.environ:
        RolloutModule.training_step = hanging  # type: ignore[method-assign]
    return run.main()


if __name__ == "__main__":
    sys.exit(main())
