"""Every stage under every strategy, on two CPU processes: trained, gone on with, exported, and as exact as DDP.

``make test`` runs one of each family; ``make test-all`` runs all, and writes ``docs/strategies.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import checkpoint_files as files
from streamchar.nn.bfloat16 import fast_bfloat16
from tests.ranks import LIMIT_S, train_apart
from tests.small_export import export
from tests.small_stage import STAGES, STRATEGIES, answers

pytestmark = pytest.mark.timeout(3 * LIMIT_S)
HALF, END = 4, 6
SOON = {("rollout", "fsdp2"), ("rollout", "zero-2")}
CASES = [pytest.param((stage, name), marks=() if (stage, name) in SOON else pytest.mark.slow, id=f"{stage}-{name}")
         for stage in STAGES for name in STRATEGIES]


def train(root: Path, stage: str, steps: int, name: str, *more: str) -> dict[str, Any]:
    """Train to ``steps`` under a strategy, or go on to there; the newest checkpoint. Students hear a guided c_a."""
    guided = ["guidance=3.0"] if stage in ("dmd", "rollout") else []
    return train_apart(root, stage, steps, "devices=2", *guided, *STRATEGIES[name], *more)


@dataclass
class Trained:
    """A stage's training under a strategy: in one go, or in two processes one after the other (``cut``)."""

    root: Path
    stage: str
    name: str
    cut: bool

    def at(self, steps: int) -> dict[str, Any]:
        """Its checkpoint at ``HALF`` or ``END``, trained when first asked for."""
        for end in (HALF, END) if self.cut else (END,):
            if not self._folder(steps).exists() and not self._folder(end).exists():
                train(self.root, self.stage, end, self.name)
        return files.load(self._folder(steps))

    def _folder(self, steps: int) -> Path:
        return self.root / "run" / self.stage / "checkpoints" / f"step_{steps:08d}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(stage, strategy) -> its training in one go."""
    found: dict[tuple[str, str], Trained] = {}

    def of(stage: str, name: str = "ddp") -> Trained:
        if (stage, name) not in found:
            found[stage, name] = Trained(tmp_path_factory.mktemp(name), stage, name, cut=False)
        return found[stage, name]

    return of


@pytest.fixture(scope="module", params=CASES)
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A stage under a strategy, ended in the middle and gone on with."""
    stage, name = request.param
    return Trained(tmp_path_factory.mktemp(f"{stage}-{name}"), stage, name, cut=True)


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


def test_train(cut: Trained, whole: Any, record_property: Any) -> None:
    """As far as its first process comes, a stage learns what DDP learns; DDP learns what one process does."""
    record_property("cell", [cut.stage, cut.name, "train"])
    wanted = whole(cut.stage, "single" if cut.name == "ddp" else "ddp")
    assert_alike(cut.at(HALF), wanted.at(HALF), exact=cut.name in ("fsdp2", "hsdp", "fsdp2-offload"))


def test_resume(cut: Trained, whole: Any, record_property: Any) -> None:
    """A second process goes on, and ends as in one go: with the same bits, under ZeRO as DDP to rounding."""
    record_property("cell", [cut.stage, cut.name, "resume"])
    wanted = whole(cut.stage, "single" if cut.name == "single" else "ddp")
    assert_alike(cut.at(END), wanted.at(END), exact="zero" not in cut.name)


def test_export(cut: Trained, record_property: Any) -> None:
    """``stage=export`` and ``from_pretrained`` give the averaged weights that the training processes had in memory."""
    record_property("cell", [cut.stage, cut.name, "export"])
    state = cut.at(END)
    character = export(cut.root, cut.stage)
    roles = {"orchestrator": {"orchestrator": character.orchestrator},
             "teacher": {"teacher": character.denoiser, "orchestrator": character.orchestrator},
             }.get(cut.stage, {"student": character.denoiser})
    in_memory = torch.load(cut.root / "answers.pt", weights_only=True)
    assert in_memory.keys() == roles.keys()
    for role, model in roles.items():
        torch.testing.assert_close(answers(model), in_memory[role], atol=1e-5, rtol=1e-5)
        averaged, trained = (files.role_weights(state, role, averaged) for averaged in (True, False))
        own = model.state_dict()
        assert own.keys() == averaged.keys() and all(torch.equal(own[name], averaged[name]) for name in own)
        assert any(not torch.equal(own[name], trained[name]) for name in own)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero-1", "zero-2", "zero-3"])
def test_a_rollout_under_zero_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    one, two = (Trained(tmp_path / kind, "rollout", name, cut=kind == "two") for kind in ("one", "two"))
    assert_alike(two.at(END), one.at(END), exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero-2", "zero-3"])
def test_what_is_not_finite_on_one_rank_is_dropped_by_all(name: str, tmp_path: Path) -> None:
    """Sample 6 is of the second rank's second batch: the first rank's own loss is finite there."""
    module = train(tmp_path, "teacher", 3, name, "poison=6")["module"]
    assert module["counters"]["nonfinite"] == 1 and module["counters"]["updates"] == {"teacher": 2}
    assert all(bool(value.isfinite().all()) for value in module["weights"].values())
    assert {float(state["step"]) for state in module["optimizers"]["teacher"].values()} == {2.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero-2", "zero-3"])
def test_what_is_not_finite_in_a_students_start_is_dropped_by_all(name: str, tmp_path: Path) -> None:
    module = train(tmp_path, "dmd", 3, name, "poison=6", "start=2")["module"]
    assert module["counters"]["updates"] == {"trajectory": 1, "student": 1, "critic": 1}
    assert all(bool(value.isfinite().all()) for value in module["weights"].values())


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(stage, options) -> two iterations on the teacher's trajectories and two of matching under DDP."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}

    def of(stage: str, *options: str) -> dict[str, Any]:
        if (stage, *options) not in found:
            found[stage, *options] = train(tmp_path_factory.mktemp(stage), stage, 4, "ddp", *options)
        return found[stage, *options]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2", "zero-1", "zero-2", "zero-3"])
@pytest.mark.parametrize("stage", ["dmd", "rollout"])
def test_a_students_start_is_the_same_where_models_are_shared_out(stage: str, name: str, start: Any, tmp_path: Path
                                                                  ) -> None:
    """Cut in the start, where it ends and in matching; ZeRO's one engine for both ways keeps only the states of one.
    Under ZeRO with gradients that are clipped, by a norm that is summed in another order."""
    options = ("start=2",) if name == "fsdp2" else ("start=2", "clip=0.5")
    for steps, trained in ((1, {"trajectory"}), (2, {"trajectory"}), (3, {"critic", "student"})):
        states = train(tmp_path / "cut", stage, steps, name, "ckpt_every=1", *options)["module"]["optimizers"]
        assert {role for role, of in states.items() if of} == trained
    found = train(tmp_path / "cut", stage, 4, name, *options)
    assert found["module"]["counters"]["updates"] == {"trajectory": 2, "student": 1, "critic": 2}
    assert_alike(found, start(stage, *options), exact=name == "fsdp2")
    assert_alike(found, train(tmp_path / "whole", stage, 4, name, *options), exact=True)


@pytest.mark.slow
def test_a_stage_goes_on_under_another_strategy(whole: Any, tmp_path: Path) -> None:
    for steps, name in ((2, "zero-3"), (4, "fsdp2"), (5, "zero-1")):
        train(tmp_path, "dmd", steps, name)
    assert_alike(train(tmp_path, "dmd", END, "ddp"), whole("dmd").at(END), exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("name, option", [
    *((name, f"activations={mode}") for name in ("fsdp2", "zero-2", "zero-3") for mode in ("recompute", "selective")),
    ("fsdp2", "compile=true")])
def test_memory_and_speed_options_change_nothing(name: str, option: str, whole: Any, tmp_path: Path) -> None:
    assert_alike(train(tmp_path, "teacher", END, name, option), whole("teacher").at(END), exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("stage, mode", [("dmd", "recompute"), ("dmd", "selective"), ("rollout", "recompute")])
def test_roles_recompute_what_zero_has_taken_apart(stage: str, mode: str, whole: Any, tmp_path: Path) -> None:
    """Student, critic and teacher with one another's passes between those that are recomputed."""
    found = train(tmp_path, stage, END, "zero-3", f"activations={mode}")
    assert_alike(found, whole(stage).at(END), exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dmd", "rollout"])
def test_compiled_roles_learn_as_eager_ones(stage: str, tmp_path: Path) -> None:
    """Student, teacher and critic: blocks with gradient, without, and through the teacher to the student."""
    found, wanted = (train(tmp_path / how, stage, 3, "single", f"compile={how}") for how in ("true", "false"))
    assert_alike(found, wanted, exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero-2"])
def test_streams_rolled_one_after_another_give_the_same_update(name: str, whole: Any, tmp_path: Path) -> None:
    """The streams' memory persists through micro-batches: they go on where those rolled together do."""
    found = train(tmp_path, "rollout", END, name, "accumulate=2")
    assert_alike(found, whole("rollout").at(END), exact=False)


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
