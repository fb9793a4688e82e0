"""One engine of DeepSpeed for two roles that train the same model in turn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from pipelines.strategies.engine_optimizer import Engine, EngineOptimizer

START = {"lr": 1e-2, "full_lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}
THEN = {"lr": 1e-3, "full_lr": 1e-3, "betas": (0.0, 0.999), "weight_decay": 0.0}


class Flat(Engine):
    """Stands in for ZeRO-3 on one rank: one flat piece of weights, whose gradients are there already."""

    def __init__(self, weights: torch.nn.Parameter) -> None:
        adam = torch.optim.AdamW([weights], lr=0.0)
        zero = SimpleNamespace(fp32_partitioned_groups_flat=[weights], optimizer=adam, param_groups=adam.param_groups,
                               step=adam.step, zero_grad=adam.zero_grad)
        super().__init__(SimpleNamespace(optimizer=zero), 3)

    def gradient_norm(self, limit: float) -> torch.Tensor:
        return torch.zeros(())


def update(weights: torch.nn.Parameter, optimizer: Any, number: int) -> None:
    weights.grad = torch.sin(torch.arange(4.0) + number)
    if isinstance(optimizer, EngineOptimizer):
        optimizer.gradient_norm(1.0)
    optimizer.step()


def test_two_roles_in_turn_learn_as_with_optimisers_of_their_own() -> None:
    shared, own = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    engine = Flat(shared)
    first, second = EngineOptimizer(engine, "start", [START]), EngineOptimizer(engine, "then", [THEN])
    apart = [torch.optim.AdamW([own], **{k: v for k, v in options.items() if k != "full_lr"})
             for options in (START, THEN)]
    for number, turn in enumerate((0, 0, 0, 1, 1)):
        update(shared, (first, second)[turn], number)
        update(own, apart[turn], number)
        torch.testing.assert_close(shared, own, rtol=0, atol=0)
    assert float(engine._states()[0]["step"]) == 2


def test_states_are_of_the_role_that_made_them_alone() -> None:
    shared = torch.nn.Parameter(torch.ones(4))
    engine = Flat(shared)
    first, second = EngineOptimizer(engine, "start", [START]), EngineOptimizer(engine, "then", [THEN])
    update(shared, first, 0)
    second.forget_state()
    assert engine.owner == "start" and engine._states()[0]["exp_avg"].any() and second.named_state({}, True) == {}
    first.forget_state()
    assert engine.owner is None and not engine._states()[0]["exp_avg"].any() and first.named_state({}, True) == {}


def test_dropped_gradients_move_nothing() -> None:
    shared = torch.nn.Parameter(torch.ones(4))
    role = EngineOptimizer(Flat(shared), "start", [START])
    shared.grad = torch.full((4,), float("nan"))
    role.gradient_norm(1.0)
    role.drop_gradients()
    role.step()
    assert shared.grad is None and torch.equal(shared, torch.ones(4)) and float(role.engine._states()[0]["step"]) == 0
    update(shared, role, 1)
    assert not torch.equal(shared, torch.ones(4))
