"""Claims on a shared folder, and children that do not outlive their parent."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datamodules.claims import VOID_S, claimed
from streamchar.errors import InputError

ROOT = Path(__file__).parents[2]


def test_one_has_it_and_gives_it_back(tmp_path):
    with claimed(tmp_path / "a", "r") as first, claimed(tmp_path / "a", "r") as second:
        assert (first, second) == (True, False)
    assert not list(tmp_path.iterdir())
    with claimed(tmp_path / "a", "r") as again:
        assert again


def test_an_error_gives_it_back_too(tmp_path):
    with pytest.raises(ValueError, match="full"), claimed(tmp_path / "a", "r"):
        raise ValueError("full")
    assert not list(tmp_path.iterdir())


def test_other_settings_at_the_same_time_are_told(tmp_path):
    with claimed(tmp_path / "a", "r"), pytest.raises(InputError, match="with other settings by process"):  # noqa: SIM117
        with claimed(tmp_path / "a", "other"):
            pass


def dead_process() -> int:
    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join()
    return int(process.pid or 0)


@pytest.mark.parametrize(("host", "age", "free"), [(socket.gethostname(), 0.0, True), ("elsewhere", 0.0, False),
                                                   ("elsewhere", VOID_S + 1, True)])
def test_a_claim_whose_holder_is_gone_is_void(tmp_path, host, age, free):
    claim = tmp_path / "a.claim"
    claim.write_text(json.dumps({"host": host, "process": dead_process(), "recipe": "r"}))
    os.utime(claim, (time.time() - age,) * 2)
    with claimed(tmp_path / "a", "r") as ours:
        assert ours == free
    assert claim.exists() != free


PARENT = """
import multiprocessing, signal, sys
sys.path.insert(0, {root!r})
from datamodules.orphans import end_with_parent
def child():
    end_with_parent()
    print("child", flush=True)
    signal.pause()
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    signal.pause()
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_ends_with_its_parent(tmp_path, how):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(root=str(ROOT)))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == b"child\n"
    parent.send_signal(how)
    parent.wait()
    assert parent.stdout.read() == b""  # its end comes when the child, which holds it too, is gone
