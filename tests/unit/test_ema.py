"""Averaged weights: the formula, the counter it runs on, and a swap that leaves no trace."""

from types import SimpleNamespace

import pytest
import torch

from callbacks.ema import AveragedWeights
from streamchar.errors import CheckpointError
from tests.fake_stage import FakeModule


def set_all(module, value):
    with torch.no_grad():
        for p in module.student.parameters():
            p.fill_(value)


def started(decay=0.5, start=1):
    module, ema = FakeModule(), AveragedWeights(decay, start)
    set_all(module, 1.0)
    ema.on_fit_start(None, module)
    return module, ema


def step(ema, module, value, counts=True):
    set_all(module, value)
    module.generator_updates += counts
    ema.on_train_batch_end(None, module)


def test_equals_the_weights_until_the_start_then_decays():
    module, ema = started(decay=0.5, start=1)
    step(ema, module, 3.0)
    assert torch.all(ema.shadow["student"]["weight"] == 3.0)
    step(ema, module, 5.0)
    assert torch.all(ema.shadow["student"]["weight"] == 4.0)
    step(ema, module, 8.0)
    assert torch.all(ema.shadow["student"]["bias"] == 6.0)


def test_counts_the_generators_updates_and_not_iterations():
    module, ema = started(decay=0.5, start=0)
    step(ema, module, 3.0)
    for _ in range(5):
        step(ema, module, 100.0, counts=False)
    assert torch.all(ema.shadow["student"]["weight"] == 2.0)


def test_small_changes_are_not_lost_to_bf16():
    module = FakeModule().bfloat16()
    ema = AveragedWeights(0.999)
    set_all(module, 1.0)
    ema.on_fit_start(None, module)
    assert ema.shadow["student"]["weight"].dtype == torch.float32
    step(ema, module, 2.0)
    assert torch.allclose(ema.shadow["student"]["weight"], torch.tensor(1.001))


def test_swap_is_undone_exactly_and_nests():
    module, ema = started()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    ema.shadow["student"]["weight"].fill_(7.0)
    with ema.swapped(module):
        assert torch.all(module.student.weight == 7.0)
        with ema.swapped(module):
            assert torch.all(module.student.weight == 7.0)
        assert torch.all(module.student.weight == 7.0)
    assert all(torch.equal(before[n], p) for n, p in module.named_parameters())


def test_swap_is_undone_after_an_error():
    module, ema = started()
    ema.shadow["student"]["weight"].fill_(7.0)
    with pytest.raises(RuntimeError), ema.swapped(module):
        raise RuntimeError
    assert torch.all(module.student.weight == 1.0)


def test_state_is_restored_and_another_architecture_refused():
    module, ema = started()
    step(ema, module, 3.0)
    step(ema, module, 5.0)
    checkpoint: dict = {}
    ema.on_save_checkpoint(SimpleNamespace(is_global_zero=True), module, checkpoint)
    again, other = FakeModule(), AveragedWeights(0.5, 1)
    other.on_load_checkpoint(None, again, checkpoint)
    other.on_fit_start(None, again)
    assert other.updates == 2
    assert torch.equal(other.shadow["student"]["weight"], ema.shadow["student"]["weight"])
    with pytest.raises(CheckpointError, match="another architecture"):
        AveragedWeights(0.5).on_load_checkpoint(None, FakeModule(width=8), checkpoint)


def test_a_module_without_roles_is_refused():
    with pytest.raises(TypeError, match="callbacks.ema=false"):
        AveragedWeights(0.5).on_fit_start(None, torch.nn.Linear(2, 2))
