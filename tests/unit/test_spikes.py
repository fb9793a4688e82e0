"""Spike scores: a provoked spike stands out, ordinary noise does not."""

from __future__ import annotations

import lightning as L
import pytest
import torch

from callbacks.spikes import ENOUGH, Spikes, spike_score
from callbacks.step_logger import StepLogger
from tests.integration.test_stage_modules import Data, build


class Rows(StepLogger):
    """Keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, row: dict[str, float]) -> None:
        self.found.append((step, row))


def test_the_score_is_robust_and_in_standard_deviations() -> None:
    before = torch.randn(128, generator=torch.Generator().manual_seed(0)).add(10).tolist()
    assert spike_score(15.0, before) == pytest.approx(5.0, abs=1.0)
    assert spike_score(15.0, [*before[:-3], 1e6, 1e6, 1e6]) == pytest.approx(5.0, abs=1.0)
    assert spike_score(2.001, [2.0] * 20) == pytest.approx(0.5)


def test_a_provoked_spike_of_loss_and_gradient_is_logged_once() -> None:
    spikes, rows = Spikes(), Rows()

    module, data = build("teacher"), Data("teacher")
    good, at = data.batch, ENOUGH + 2

    def batch(number: int):  # type: ignore[no-untyped-def]
        made = good(number)
        if number == at:
            made.target.video.mul_(30)
        return made

    data.batch = batch  # type: ignore[method-assign]
    trainer = L.Trainer(max_steps=at + 2, accelerator="cpu", logger=rows, enable_checkpointing=False, devices=1,
                        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
                        callbacks=[spikes], log_every_n_steps=1)
    rows.attach(trainer)
    trainer.fit(module, data)
    rows.flush()
    assert [step for step, row in rows.found if "train/loss" in row] == list(range(1, at + 3))
    logged = [row for _, row in rows.found if "stability/spike_loss" in row]
    assert len(logged) == 4  # from the 17th step on
    for name in ("stability/spike_loss", "stability/spike_grad"):
        scores = [figures[name] for figures in logged]
        assert scores.index(max(scores)) == 2 and scores[2] > 10 and abs(scores[0]) < 10, (name, scores)
    again = Spikes()
    again.load_state_dict(spikes.state_dict())
    assert again.before == spikes.before and "stability/grad_norm_teacher" in again.before


def test_roles_are_measured_against_their_own_past() -> None:
    spikes = Spikes()
    for i in range(20):
        spikes.take("stability/spike_grad", "stability/grad_norm_critic", 1.0 + 0.01 * (i % 3))
        spikes.take("stability/spike_grad", "stability/grad_norm_student", 100.0 + (i % 3))
    assert spikes.highest["stability/spike_grad"] < 2
    spikes.take("stability/spike_grad", "stability/grad_norm_critic", float("nan"))
    assert len(spikes.before["stability/grad_norm_critic"]) == 20
