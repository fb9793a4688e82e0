"""Every stage under every strategy, on two CPU processes: trained, gone on with, and as exact as DDP.

``make test`` runs one of each family; ``make test-all`` runs all, and writes ``docs/strategies.md``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import checkpoint_files as files
from pipelines.config.places import CHECKOUT
from streamchar.hub.pretrained import load_weights
from streamchar.nn.bfloat16 import fast_bfloat16
from tests import tiny_models as tiny
from tests.small_stage import STAGES

STRATEGIES = {
    "ddp": ["strategy=ddp"], "fsdp2": ["strategy=fsdp2"], "hsdp": ["strategy=fsdp2", "shard_ranks=1"],
    "fsdp2-offload": ["strategy=fsdp2", "frozen=offload"], "zero-1": ["strategy=deepspeed", "zero_stage=1"],
    "zero-2": ["strategy=deepspeed", "zero_stage=2"], "zero-3": ["strategy=deepspeed", "zero_stage=3", "frozen=shard"]}
LIMIT_S = 1800
"""Of one training, for a hang: it works for 25 s, twice 7 of them to import, which take minutes on a busy machine."""
pytestmark = pytest.mark.timeout(3 * LIMIT_S)
SOON = {("rollout", "fsdp2"), ("rollout", "zero-2")}
CASES = [pytest.param(stage, name, marks=() if (stage, name) in SOON else pytest.mark.slow)
         for stage in STAGES for name in STRATEGIES if name != "ddp"]


def train(root: Path, stage: str, steps: int, name: str, *more: str) -> dict[str, Any]:
    """Train to ``steps`` on two processes, or go on to there; the newest checkpoint."""
    command = [sys.executable, "-m", "tests.small_stage", str(root), stage, f"steps={steps}", "devices=2",
               *STRATEGIES[name], *more]
    done = subprocess.run(command, cwd=CHECKOUT, text=True, capture_output=True, timeout=LIMIT_S, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    path = files.newest_complete(root / "run" / stage / "checkpoints")
    assert path is not None and files.step_of(path) == steps
    return files.load(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """stage -> its end under DDP in one go, trained once."""
    found: dict[str, dict[str, Any]] = {}

    def end(stage: str) -> dict[str, Any]:
        if stage not in found:
            found[stage] = train(tmp_path_factory.mktemp("ddp"), stage, 6, "ddp")
        return found[stage]

    return end


def assert_alike(found: dict[str, Any], wanted: dict[str, Any], exact: bool, states: float = 2e-6,
                 weights: float = 5e-5) -> None:
    """Optimiser states, weights and averages are the same, to rounding where sums are taken in another order.

    States are sums of gradients, and tell any other gradient. Adam makes a step of full size of rounding where a
    gradient is next to nothing, so weights may differ by a twentieth of one step (1e-3).
    """
    assert found["module"]["counters"] == wanted["module"]["counters"]
    assert found["module"]["optimizers"].keys() == wanted["module"]["optimizers"].keys()
    for role, theirs in wanted["module"]["optimizers"].items():
        ours = found["module"]["optimizers"][role]
        assert ours.keys() == theirs.keys()
        for name in theirs:
            _assert_close(ours[name], theirs[name], 0.0 if exact else states)
    _assert_close(found["module"]["weights"], wanted["module"]["weights"], 0.0 if exact else weights)
    for role, entry in wanted["ema"].items():
        _assert_close(found["ema"][role]["weights"], entry["weights"], 0.0 if exact else weights)


def _assert_close(ours: dict[str, Any], theirs: dict[str, Any], atol: float) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key].float(), value.float(), rtol=1e-5 if atol else 0.0, atol=atol,
                                   msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("stage, name", CASES)
def test_a_stage_cut_in_two_ends_as_ddp_in_one_go(stage: str, name: str, whole: Any, tmp_path: Path,
                                                  record_property: Any) -> None:
    record_property("cell", [stage, name])
    train(tmp_path, stage, 4, name)
    found = train(tmp_path, stage, 6, name)
    assert_alike(found, whole(stage), exact="zero" not in name)
    model = "orchestrator" if stage == "orchestrator" else "teacher" if stage == "teacher" else "student"
    built = tiny.orchestrator() if model == "orchestrator" else tiny.denoiser()
    load_weights(built, files.role_weights(found, model, averaged=True), name)


@pytest.mark.slow
def test_a_stage_goes_on_under_another_strategy(whole: Any, tmp_path: Path) -> None:
    for steps, name in ((2, "zero-3"), (4, "fsdp2"), (5, "zero-1")):
        train(tmp_path, "dmd", steps, name)
    assert_alike(train(tmp_path, "dmd", 6, "ddp"), whole("dmd"), exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("name, more", [("fsdp2", ["activations=recompute"]), ("fsdp2", ["activations=selective"]),
                                        ("fsdp2", ["compile=true"])])
def test_memory_and_speed_options_change_nothing(name: str, more: list[str], tmp_path: Path) -> None:
    found, wanted = train(tmp_path / "a", "teacher", 3, name, *more), train(tmp_path / "b", "teacher", 3, "ddp")
    assert_alike(found, wanted, exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero-2"])
def test_streams_rolled_one_after_another_give_the_same_update(name: str, whole: Any, tmp_path: Path) -> None:
    """The streams' memory persists through micro-batches: they go on where those rolled together do."""
    assert_alike(train(tmp_path, "rollout", 6, name, "accumulate=2"), whole("rollout"), exact=False)


@pytest.mark.slow
def test_muon_moves_matrices_that_are_shared_out_as_whole_ones(tmp_path: Path) -> None:
    """With products in float32 as closely as AdamW. In bfloat16, where the processor has it, sums in another order
    round otherwise; how far that leads is measured, not set: both runs err alike from float32, so that they are at most
    twice as far apart as one of them is from it (triangle inequality)."""
    exact, there = (train(tmp_path / f"float32-{name}", "teacher", 3, name, "kind=muon", "products=float32")
                    for name in ("ddp", "fsdp2"))
    assert_alike(there, exact, exact=False)
    if not fast_bfloat16("cpu"):
        return  # ``kind=muon`` is the float32 one
    whole, parts = (train(tmp_path / f"bf16-{name}", "teacher", 3, name, "kind=muon") for name in ("ddp", "fsdp2"))
    states = whole["module"]["optimizers"]["teacher"]
    matrices = [name for name, state in states.items() if "momentum_buffer" in state]
    for name in matrices:
        wanted, rounded, found = (run["module"]["weights"][name] for run in (exact, whole, parts))
        assert float((found - rounded).norm()) <= 2 * float((rounded - wanted).norm()), name
    assert matrices
