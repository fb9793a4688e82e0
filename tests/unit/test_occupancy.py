"""Two processes cannot make the same stage; a process that is gone leaves nothing in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.occupancy import occupied
from streamchar.errors import InputError

CHECKOUT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from pipelines.occupancy import occupied
with occupied(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_holds_it_and_a_killed_holder_frees_it(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=CHECKOUT, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"SLURM_JOB_ID": "77"})
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"worked on by job 77, process {other.pid} on .*choose another name="):
        occupied(tmp_path).__enter__()
    other.kill()
    other.wait()
    with occupied(tmp_path):
        pass


def test_other_ranks_leave_the_lock_to_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with occupied(tmp_path / "stage"):
        assert not (tmp_path / "stage").exists()
