"""A file system that is really full: training goes on from its last good checkpoint, once there is room again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from callbacks import checkpoint_files as files
from callbacks.metrics_file import read_rows
from streamchar.errors import CheckpointError
from tests.fake_stage import FakeModule, train


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
                                      capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


class Filling(FakeModule):
    """Leaves no byte free in its fifth step, and frees them again in a later one."""

    def __init__(self, filler: Path, frees: int = -1) -> None:
        super().__init__()
        self.filler, self.frees = filler, frees

    def training_step(self, batch, number):
        super().training_step(batch, number)
        if self.iteration == self.frees:
            self.filler.unlink()
        if self.iteration == 5:
            with self.filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(512))


def test_a_full_disk_costs_what_came_after_the_last_save(small_disk: Path, tmp_path: Path, caplog) -> None:
    with pytest.raises(CheckpointError, match="last good one is step_00000004; free some space"):
        train(small_disk, 9, module=Filling(small_disk / "filler"))
    assert "training goes on" in caplog.text
    (small_disk / "filler").unlink()
    complete, second = train(small_disk, 9)
    assert complete and second.seen == list(range(8, 18))
    train(tmp_path / "whole", 9)
    states = [files.load(files.newest_complete(root / "run/teacher/checkpoints"))["module"]["weights"]
              for root in (small_disk, tmp_path / "whole")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [row["step"] for row in read_rows(small_disk / "run/teacher/metrics.jsonl")] == list(range(10))


def test_a_disk_that_is_full_for_a_while_costs_no_row(small_disk: Path, caplog) -> None:
    complete, _ = train(small_disk, 80, module=Filling(small_disk / "filler", frees=70))  # rows fill a page
    folder = small_disk / "run/teacher"
    assert complete and files.step_of(files.newest_complete(folder / "checkpoints")) == 80
    assert caplog.text.count("are kept in memory and written when there is room") == 1
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(81))
