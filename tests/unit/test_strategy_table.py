"""``docs/strategies.md`` keeps what is not run again."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.places import CHECKOUT
from tests.small_stage import STAGES, STRATEGIES
from tests.strategy_table import HEAD, KINDS, read_table, write_table


def test_a_part_that_runs_anew_leaves_the_other_cells(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    assert read_table(path) == {}
    write_table(path, {"dmd/fsdp2/train": "2026-01-01 aaa", "dmd/zero-1/export": "2026-01-01 aaa+"})
    write_table(path, read_table(path) | {"rollout/fsdp2/resume": "2026-02-02 bbb",
                                          "dmd/zero-1/export": "failed 2026-02-02 bbb"})
    assert read_table(path) == {"dmd/fsdp2/train": "2026-01-01 aaa", "dmd/zero-1/export": "failed 2026-02-02 bbb",
                                "rollout/fsdp2/resume": "2026-02-02 bbb"}
    assert "| rollout | fsdp2 | not run | 2026-02-02 bbb | not run |" in path.read_text()


def test_the_table_in_the_repository_has_a_row_for_every_stage_and_strategy() -> None:
    path = CHECKOUT / "docs" / "strategies.md"
    rows = {f"{stage}/{name}" for stage in STAGES for name in STRATEGIES}
    assert path.read_text().startswith(HEAD) and path.read_text().count("\n| ") == 1 + len(rows)
    assert read_table(path).keys() <= {f"{row}/{kind}" for row in rows for kind in KINDS}
