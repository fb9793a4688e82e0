"""Compiled parts give what eager ones give, each in one piece, under the same names."""

from __future__ import annotations

import logging
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from streamchar.distributed import compiling
from streamchar.distributed.compiling import can_compile, compile_parts
from streamchar.orchestrator.model import Orchestrator
from tests import tiny_models as tiny


def learned(model: Orchestrator) -> list[Tensor]:
    """What a pass gives for the block and the pointer, and every gradient."""
    c, audio, sigma = tiny.conditions(2), tiny.latents(2).audio, torch.tensor([0.3, 0.9])
    prefix = model.prefix(c)
    block, end = model.block(prefix, audio, sigma), model.point(prefix, audio)
    (block.square().sum() + end.square().sum()).backward()
    return [block.detach(), end.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.fixture
def kept_graphs():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("whole_lm, keys", [(False, 2), (True, 2), (True, 1)])
def test_an_lm_is_captured_and_learns_the_same(whole_lm: bool, keys: int, kept_graphs: None) -> None:
    """MLPs and norms, or whole layers, each query with keys of its own or all sharing them."""
    plain = tiny.orchestrator(kv_heads=keys).train()
    ours = deepcopy(plain)
    compile_parts(ours, whole_lm, backend="eager", fullgraph=True)
    assert list(ours.state_dict()) == list(plain.state_dict())
    found, wanted = learned(ours), learned(plain)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_whole_layers_are_as_near_to_float32_as_eager_ones(kept_graphs: None) -> None:
    plain = tiny.orchestrator().train()
    ours = deepcopy(plain)
    compile_parts(ours, True, backend="eager", fullgraph=True)
    exact = learned(deepcopy(plain))
    with torch.autocast("cpu", torch.bfloat16):
        found, eager = learned(ours), learned(plain)
    for a, b, c in zip(found, eager, exact, strict=True):
        assert float((a - c).norm()) <= 2 * float((b - c).norm()) + 1e-3 * float(c.norm())


def test_whole_layers_are_compiled_once_for_all_of_them(kept_graphs: None) -> None:
    """One graph each for the prefix and for a block on it; more would run into dynamo's limit."""
    graphs = []

    def compiler(graph, inputs):  # type: ignore[no-untyped-def]
        graphs.append(graph)
        return graph.forward

    ours = tiny.orchestrator().train()
    compile_parts(ours, True, backend=compiler)
    learned(ours)
    assert len(ours.llm.layers) > 1 and len(graphs) == 2


def test_what_does_not_learn_runs_as_it_was(kept_graphs: None) -> None:
    def compiler(graph, inputs):  # type: ignore[no-untyped-def]
        raise AssertionError("compiled")

    ours = tiny.orchestrator().eval()
    compile_parts(ours, True, backend=compiler)
    ours.prefix(tiny.conditions(2))


def test_without_a_compiler_a_line_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuses(_: Tensor) -> Tensor:
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(compiling.torch, "compile", lambda fn: refuses)
    with caplog.at_level(logging.WARNING):
        assert not can_compile("cpu")
    assert "no working C++ compiler found" in caplog.text and "g++" in caplog.text
    assert can_compile("cuda")


def test_kernels_are_made_for_the_threads_that_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept under a name that tells how many: those of two threads would be found, and slow, where one runs."""
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "threads", -1)
    monkeypatch.setattr(compiling.torch, "compile", lambda fn: fn)
    assert can_compile("cpu")
    assert config.cpp.threads == torch.get_num_threads()
