"""``docs/strategies.md`` keeps what is not run again."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.places import CHECKOUT
from tests.small_stage import STAGES
from tests.strategy_table import HEAD, read_table, write_table


def test_a_part_that_runs_anew_leaves_the_other_cells(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    assert read_table(path) == {}
    write_table(path, {"dmd/fsdp2": "2026-01-01 aaa", "dmd/zero-1": "2026-01-01 aaa+"})
    write_table(path, read_table(path) | {"rollout/fsdp2": "2026-02-02 bbb", "dmd/zero-1": "failed 2026-02-02 bbb"})
    assert read_table(path) == {"dmd/fsdp2": "2026-01-01 aaa", "dmd/zero-1": "failed 2026-02-02 bbb",
                                "rollout/fsdp2": "2026-02-02 bbb"}
    assert "| rollout | 2026-02-02 bbb | not run |" in path.read_text()


def test_the_table_in_the_repository_can_be_read() -> None:
    path = CHECKOUT / "docs" / "strategies.md"
    assert {cell.split("/")[0] for cell in read_table(path)} == set(STAGES) and path.read_text().startswith(HEAD)
