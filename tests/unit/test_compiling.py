"""Compiled parts give what eager ones give, each in one piece, under the same names."""

from __future__ import annotations

import logging
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines import fitting
from pipelines.trainer_config import TrainerConfig
from streamchar.distributed import compiling
from streamchar.distributed.compiling import can_compile, compile_parts
from streamchar.orchestrator.model import Orchestrator
from tests import tiny_models as tiny


class Passes(nn.Module):
    """A prefix, a block on it and the pointer."""

    def __init__(self, model: Orchestrator, samples: int = 2) -> None:
        super().__init__()
        self.model, self.samples = model, samples

    def forward(self) -> tuple[Tensor, Tensor]:
        audio, sigma = tiny.latents(self.samples).audio, torch.linspace(0.3, 0.9, self.samples)
        prefix = self.model.prefix(tiny.conditions(self.samples))
        return self.model.block(prefix, audio, sigma), self.model.point(prefix, audio)


def learned(passes: nn.Module) -> list[Tensor]:
    """What the passes give, and every gradient."""
    block, end = passes()
    (block.square().sum() + end.square().sum()).backward()
    return [block.detach(), end.detach(), *(p.grad for p in passes.parameters() if p.grad is not None)]


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
    found, wanted = learned(Passes(ours)), learned(Passes(plain))
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_whole_layers_are_as_near_to_float32_as_eager_ones(kept_graphs: None) -> None:
    plain = tiny.orchestrator().train()
    ours = deepcopy(plain)
    compile_parts(ours, True, backend="eager", fullgraph=True)
    exact = learned(Passes(deepcopy(plain)))
    with torch.autocast("cpu", torch.bfloat16):
        found, eager = learned(Passes(ours)), learned(Passes(plain))
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
    learned(Passes(ours))
    assert len(ours.llm.layers) > 1 and len(graphs) == 2


def test_layers_of_a_wide_lm_are_not_compiled_whole(monkeypatch: pytest.MonkeyPatch, kept_graphs: None) -> None:
    monkeypatch.setattr(compiling, "SMALL", 8)
    ours = tiny.orchestrator().train()
    monkeypatch.setattr(ours, "compile_llm", lambda **options: pytest.fail("compiled whole"))
    compile_parts(ours, True, backend="eager")


def test_what_does_not_learn_runs_as_it_was(kept_graphs: None) -> None:
    def compiler(graph, inputs):  # type: ignore[no-untyped-def]
        raise AssertionError("compiled")

    ours = tiny.orchestrator().eval()
    compile_parts(ours, True, backend=compiler)
    ours.prefix(tiny.conditions(2))


@pytest.fixture
def one_process(tmp_path: Path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_whole_layers_learn_the_same_under_ddp(monkeypatch: pytest.MonkeyPatch, kept_graphs: None, one_process: None
                                               ) -> None:
    """Dynamo cuts their graphs where DDP's buckets end: here after every parameter that a layer is given as it is."""
    monkeypatch.setattr(dist, "_DEFAULT_FIRST_BUCKET_BYTES", 1)
    graphs = []

    def compiler(graph, inputs):  # type: ignore[no-untyped-def]
        graphs.append(graph)
        return graph.forward

    plain = tiny.orchestrator().train()
    ours = deepcopy(plain)
    compile_parts(ours, True, backend=compiler)
    found = learned(DistributedDataParallel(Passes(ours), find_unused_parameters=True, bucket_cap_mb=2**-20))
    wanted = learned(Passes(plain))
    assert len(graphs) > 2 and len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options, whole_lm", [
    ({}, True), ({"strategy": "ddp"}, True), ({"strategy": "fsdp2"}, False), ({"strategy": "deepspeed"}, False),
    ({"activations": "selective"}, False), ({"activations": "recompute"}, False)])
def test_whole_layers_are_compiled_where_weights_and_activations_are_whole(options: dict[str, str], whole_lm: bool,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(fitting, "can_compile", lambda _: True)
    monkeypatch.setattr(fitting, "compile_parts", lambda model, whole_lm: asked.append(whole_lm))
    frozen = tiny.orchestrator().requires_grad_(False)
    fitting.prepare_models(nn.ModuleList([tiny.orchestrator(), frozen]),  # type: ignore[arg-type]
                           TrainerConfig(compile=True, accelerator="cpu", **options))  # type: ignore[arg-type]
    assert asked == [whole_lm]


def test_graphs_of_an_earlier_stage_do_not_count_towards_the_limit(monkeypatch: pytest.MonkeyPatch, kept_graphs: None
                                                                   ) -> None:
    graphs = []

    def compiler(graph, inputs):  # type: ignore[no-untyped-def]
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(fitting, "can_compile", lambda _: True)
    monkeypatch.setattr(fitting, "compile_parts", partial(compile_parts, backend=compiler))
    with torch._dynamo.config.patch(recompile_limit=2):  # type: ignore[attr-defined]
        for samples in (2, 3):
            model = tiny.orchestrator().train()
            fitting.prepare_models(nn.ModuleList([model]),  # type: ignore[arg-type]
                                   TrainerConfig(compile=True, accelerator="cpu"))
            learned(Passes(model, samples))
    assert len(graphs) == 4


@pytest.mark.parametrize("error, told", [(RuntimeError("no working C++ compiler found\nat all"), "compiler found; it"),
                                         (NotImplementedError(), "(NotImplementedError; it")])
def test_without_a_compiler_a_line_says_so(error: Exception, told: str, monkeypatch: pytest.MonkeyPatch,
                                           caplog: pytest.LogCaptureFixture) -> None:
    def refuses(_: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(compiling.torch, "compile", lambda fn: refuses)
    with caplog.at_level(logging.WARNING):
        assert not can_compile("cpu")
    assert told in caplog.text and "g++" in caplog.text


def test_on_a_gpu_what_triton_needs_is_looked_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
                                                  ) -> None:
    there = {"triton", "gcc"}
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiling, "find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name if name in there else None)
    assert can_compile("cuda") and not caplog.text
    there.remove("gcc")
    assert not can_compile("cuda") and "install gcc or set CC" in caplog.text
    there.remove("triton")
    assert not can_compile("cuda") and "pip install triton" in caplog.text


def test_kernels_are_made_for_the_threads_that_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept under a name that tells how many: those of two threads would be found, and slow, where one runs."""
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "threads", -1)
    monkeypatch.setattr(compiling.torch, "compile", lambda fn: fn)
    assert can_compile("cpu")
    assert config.cpp.threads == torch.get_num_threads()
