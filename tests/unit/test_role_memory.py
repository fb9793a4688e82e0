"""What each model occupies: its weights and its optimiser's state, told once until the next validation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from callbacks.ema import AveragedWeights
from callbacks.metrics_file import MetricsFile, read_rows
from callbacks.role_memory import RoleMemory
from lightning_modules.config import TeacherStage
from lightning_modules.stage_module import StageModule
from tests.fake_stage import FakeModule


class Two(StageModule):
    """A teacher that learns and a frozen orchestrator; its optimiser is asked for by the test."""

    clock_role, ema_roles = "teacher", ("teacher",)

    def __init__(self) -> None:
        super().__init__(TeacherStage(), 0)
        self.teacher, self.orchestrator = nn.Linear(100, 10), nn.Linear(50, 10, bias=False)
        self.orchestrator.requires_grad_(False)
        self.role_modules = {"teacher": [(self.teacher, 1.0)]}
        self.role_options = {"teacher": self.stage.optimizer}
        self.made = self.configure_optimizers()[0]

    def role_optimizer(self, role: str) -> SimpleNamespace:
        return SimpleNamespace(optimizer=self.made)


def test_an_optimisers_state_is_its_roles() -> None:
    module = Two()
    weights = 4 * 1010
    assert module.bytes_by_role() == {"teacher": weights, "orchestrator": 4 * 500}
    for p in module.teacher.parameters():
        p.grad = p.detach().clone()
    module.made.step()
    assert module.bytes_by_role()["teacher"] == pytest.approx(3 * weights, abs=16)  # two moments, counters


def test_told_in_the_first_row_and_after_a_validation(tmp_path) -> None:
    module, average, logger = FakeModule(), AveragedWeights(0.5), MetricsFile(tmp_path / "metrics.jsonl")
    module.bytes_by_role = lambda: {"critic": 2**29}
    average.on_fit_start(None, module)
    trainer = SimpleNamespace(global_step=0, log_every_n_steps=2, loggers=[logger])
    logger.attach(trainer)
    memory = RoleMemory(average)
    memory.on_train_start()
    for step in range(1, 9):
        trainer.global_step = step
        memory.on_train_batch_end(trainer, module)
        if step == 5:
            memory.on_validation_end()
    logger.finish("FINISHED")
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 6]
    assert rows[0]["perf/role_gib_critic"] == 0.5 and rows[0]["perf/role_gib_averages"] == pytest.approx(80 / 2**30)
