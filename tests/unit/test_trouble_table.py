"""``docs/requeue.md`` keeps what is not run again."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.places import CHECKOUT
from tests.slurm.trouble_table import HEAD, SAME, read_trouble_table, write_trouble_table


def test_a_trouble_that_is_tried_anew_leaves_the_other_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    assert read_trouble_table(path) == {}
    old = {("USR1", SAME): "2026-01-01 aaa", ("a second job", "it refuses"): "2026-01-01 aaa+"}
    write_trouble_table(path, old)
    new = {("USR1", SAME): "failed 2026-02-02 bbb"}
    write_trouble_table(path, read_trouble_table(path) | new)
    assert read_trouble_table(path) == old | new
    assert path.read_text().splitlines()[-2:] == [
        "| USR1 | the same | failed 2026-02-02 bbb |", "| a second job | it refuses | 2026-01-01 aaa+ |"]


def test_the_table_in_the_repository_can_be_read() -> None:
    path = CHECKOUT / "docs" / "requeue.md"
    assert ("USR1", SAME) in read_trouble_table(path) and path.read_text().startswith(HEAD)
