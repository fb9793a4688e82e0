"""What the four stages share: roles by name, counted steps, guards against non-finite values (engineering, section 3).

``global_step`` counts iterations: only the *clock role*, which is stepped in every iteration, goes through
``LightningOptimizer``; any other role is stepped through the bare optimiser.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lightning_modules.config import OptimizerConfig, StageConfig
from lightning_modules.figures import merged, read
from lightning_modules.optimizer_state import forget_state, load_named_state, named_state, parts
from lightning_modules.optimizers import (
    build_optimizer,
    clipped_norm,
    drop_gradients,
    learning_rate_factor,
    set_learning_rate,
)
from streamchar.denoiser.model import Context
from streamchar.diffusion.noise import NoiseKey
from streamchar.distributed.full_state import copy_whole, gathered, local, wrong_shapes
from streamchar.distributed.out_of_memory import at_work
from streamchar.distributed.sharding import PLANS, Sharding, open_up
from streamchar.errors import CheckpointError, NumericsError
from streamchar.orchestrator.model import Prefix
from streamchar.types import Latents


class StageModule(L.LightningModule):
    """Base of the stage modules.

    Subclasses set ``role_modules`` (role -> modules with their learning-rate factors), ``role_options`` (role ->
    optimiser options), ``clock_role`` and ``ema_roles``, and implement ``training_step``.

    Args:
        stage: options of the stage.
        seed: of all counted noise.
        directory: the stage's folder, where keys of non-finite batches are written; None writes none.
    """

    clock_role: str
    ema_roles: tuple[str, ...]

    def __init__(self, stage: StageConfig, seed: int, directory: Path | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.stage, self.seed, self.directory = stage, seed, directory
        self.role_modules: dict[str, list[tuple[nn.Module, float]]] = {}
        self.role_options: dict[str, OptimizerConfig] = {}
        self.sharding: Sharding | None = None
        self.iteration = 0
        self.updates: dict[str, int] = {}
        self.nonfinite_total = 0
        self.nonfinite_in_a_row = 0
        self.figures: dict[str, Any] = {}
        self.step_figures: dict[str, float] = {}

    # Roles and optimisers

    def configure_model(self) -> None:
        """Share the models out over the ranks, where the strategy says how; once."""
        sharding, self.sharding = self.sharding, None
        if sharding is not None:
            open_up(Latents, Context, Prefix)
            sharding.apply_all(model for model in self.children() if type(model).__name__ in PLANS)

    def role_names(self) -> list[str]:
        """Trained roles, the clock role first (the order of the optimisers)."""
        return sorted(self.role_modules, key=lambda r: r != self.clock_role)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [build_optimizer(self.role_modules[r], self.role_options[r]) for r in self.role_names()]

    def role_parameters(self, role: str) -> dict[str, Tensor]:
        """Named parameters of a submodule called ``role``, for averaging; not what it shares with a frozen one."""
        shared = self.shared_weights()
        return {name: p for name, p in getattr(self, role).named_parameters() if p not in shared}

    @property
    def generator_updates(self) -> int:
        """Updates of the role that is averaged: the student where there is one, else the only role."""
        return self.updates.get("student" if "student" in self.role_modules else self.clock_role, 0)

    def total_updates(self, role: str) -> int:
        """Updates that ``role`` makes over the whole stage."""
        return self.stage.steps

    def key(self, index: Tensor, role: str) -> NoiseKey:
        """Counted noise of this iteration."""
        return NoiseKey.of(self.seed, index, role, self.iteration)

    def data(self) -> Any:
        """The DataModule, which counts consumed samples and knows the fixed held-out streams."""
        return getattr(self.trainer, "datamodule", None)

    # One update

    def role_backward(self, role: str, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to those of ``role``; a strategy may have an engine per role."""
        with at_work(f"the {role}'s backward pass"):
            self.manual_backward(loss, role=role)

    def backward(self, loss: Tensor, *args: Any, role: str = "", **kwargs: Any) -> None:
        loss.backward()

    def step_role(self, role: str, loss: Tensor, keys: list[str]) -> dict[str, float]:
        """Clip, guard and step ``role`` after its backward passes; returns its figures for the log.

        ``loss`` is the (detached) loss of the iteration. Where any rank has a non-finite loss or gradient, all ranks
        drop the update together. The role that keeps time gives its loss back as ``train/loss``.
        """
        wrapped = self.role_optimizer(role)
        options = self.role_options[role]
        parameters = list(self.trained_parameters(role))
        norm, value, good = self._judged(clipped_norm(wrapped.optimizer, parameters, options.clip), loss)
        if not good:
            drop_gradients(wrapped.optimizer, parameters)
            self._count_nonfinite(role, keys)
        else:
            self.nonfinite_in_a_row = 0
        count = self.updates.get(role, 0)
        rate = set_learning_rate(wrapped.optimizer, learning_rate_factor(count, self.total_updates(role), options))
        keeps_time = self.keeps_time(role)
        with at_work(f"the {role}'s optimiser step"):
            (wrapped if keeps_time else wrapped.optimizer).step()
        for p in parameters:
            p.grad = None
        self.updates[role] = count + (1 if good else 0)
        figures = {f"stability/grad_norm_{role}": norm, f"stability/lr_{role}": rate,
                   "stability/nonfinite": float(self.nonfinite_total)}
        return {"train/loss": value, **figures} if keeps_time else figures

    def keeps_time(self, role: str) -> bool:
        """Whether an update of ``role`` counts this iteration in ``global_step``; exactly one does."""
        return role == self.clock_role

    def role_optimizer(self, role: str) -> Any:
        """The ``LightningOptimizer`` of a role; the bare one is its ``.optimizer``."""
        found = self.optimizers()
        return (found if isinstance(found, list) else [found])[self.role_names().index(role)]

    def forget_optimizer(self, role: str) -> None:
        """Free the optimiser state of a role that has done all its updates; later checkpoints do without it."""
        forget_state(self.role_optimizer(role).optimizer)

    def trained_parameters(self, role: str) -> Iterator[Tensor]:
        """Parameters that the role's optimiser moves."""
        for module, _ in self.role_modules[role]:
            yield from (p for p in module.parameters() if p.requires_grad)

    def _judged(self, norm: Tensor, loss: Tensor) -> tuple[float, float, bool]:
        """Gradient norm and loss of this rank as numbers, and whether those of all ranks are finite.

        The one place where a step waits for the device, once per update: the host must know whether the update is made
        before it asks for it. Until then all of the backward pass has been queued, and nothing else is read.
        """
        both = torch.stack([torch.as_tensor(x, device=self.device).float() for x in (norm, loss.detach())])
        ranks: Any = self.all_gather(both) if self.trainer.world_size > 1 else both[None]
        rows: list[list[float]] = ranks.tolist()
        own = rows[self.trainer.global_rank if len(rows) > 1 else 0]
        return own[0], own[1], all(math.isfinite(x) for row in rows for x in row)

    def _count_nonfinite(self, role: str, keys: list[str]) -> None:
        self.nonfinite_total += 1
        self.nonfinite_in_a_row += 1
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / "nonfinite.jsonl").open("a") as out:
                out.write(json.dumps({"iteration": self.iteration, "role": role, "keys": keys}) + "\n")
        if self.nonfinite_in_a_row >= self.stage.max_nonfinite:
            raise NumericsError(
                f"{self.nonfinite_in_a_row} non-finite updates in a row at iteration {self.iteration} (role {role}, "
                f"last samples {keys[:4]}); look at nonfinite.jsonl, lower the learning rate or resume from an "
                "earlier checkpoint")

    def log_step(self, values: dict[str, Any], samples: int) -> None:
        """Log this iteration's figures, count it and its consumed samples; the last call of every ``training_step``.

        Not every iteration has every figure (the generator's, or a noise level's): a logged row holds the newest value
        of each since the row before.
        """
        self.step_figures = {k: float(v) for k, v in values.items() if isinstance(v, float | int)}
        self.figures = merged(self.figures, values)
        self.iteration += 1
        if self.iteration % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log_row()
            self.figures = {}
        advance = getattr(self.data(), "advance", None)
        if advance is not None:
            advance(samples)

    def _log_row(self) -> None:
        """Hand the figures since the last row to the loggers, as they are: ``self.log`` would keep a sum for each, over
        epochs and ranks, at more than a hundredth of a small model's step."""
        row = {"data/quarantined": float(getattr(self.data(), "quarantined", 0)), **read(self.figures)}
        for logger in self.trainer.loggers:
            logger.log_metrics(row, self.trainer.global_step)

    def on_train_batch_end(self, *_: Any) -> None:
        """After the callbacks: where one of them ends training, there is a last row, due or not."""
        if self.trainer.should_stop and self.figures:
            self._log_row()

    # Checkpoints hold trained roles only; frozen parts are referred to by path and hash.

    def checkpoint_state_dict(self, keep: bool = True) -> dict[str, Any]:
        """Weights of the trained submodules by role, optimiser states by role and parameter, and the counters.

        All tensors are whole, whatever the strategy; ``keep``: False on ranks that only help to gather them.
        """
        counters = {"iteration": self.iteration, "updates": dict(self.updates), "nonfinite": self.nonfinite_total,
                    "nonfinite_in_a_row": self.nonfinite_in_a_row}
        names = self.parameter_names()
        states = {role: named_state(self.role_optimizer(role).optimizer, names, keep) for role in self.role_names()}
        return {"weights": gathered(self.trained_state(), keep), "optimizers": states, "counters": counters,
                "extra": {**self.extra_state(), "figures": read(self.figures)}}

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`checkpoint_state_dict` without the optimisers, which may not be there yet.

        Raises:
            CheckpointError: for a checkpoint of another architecture.
        """
        own = self.state_dict(keep_vars=True)
        if wrong := wrong_shapes(own, state["weights"]):
            raise CheckpointError(f"checkpoint of another architecture: {wrong[0]}; use the checkpoint's own "
                                  "config.yaml or another name=")
        for name, value in state["weights"].items():
            copy_whole(own[name], value)
        self.iteration = int(state["counters"]["iteration"])
        self.updates = dict(state["counters"]["updates"])
        self.nonfinite_total = int(state["counters"]["nonfinite"])
        self.nonfinite_in_a_row = int(state["counters"].get("nonfinite_in_a_row", 0))
        extra = dict(state["extra"])
        self.figures = dict(extra.pop("figures", {}))
        self.load_extra_state(extra)

    def load_optimizer_states(self, state: dict[str, Any]) -> None:
        """Restore the optimisers from :meth:`checkpoint_state_dict`, when the strategy has built them.

        Raises:
            CheckpointError: for a checkpoint that does not have them by name.
        """
        if "optimizers" not in state:
            raise CheckpointError("the checkpoint was made by an older version, which stored optimisers in another "
                                  "way; finish the stage with that version, or begin afresh with trainer.resume=never")
        names = self.parameter_names()
        for role in self.role_names():
            load_named_state(self.role_optimizer(role).optimizer, names, state["optimizers"].get(role, {}))

    def bytes_by_role(self) -> dict[str, int]:
        """Bytes on this rank: of each submodule its weights, and of each role what its optimiser keeps, as far as that
        tells (an engine of DeepSpeed does not). What roles share with a frozen model is the frozen model's."""
        shared, trained, found = self.shared_weights(), self.trained_submodules(), {}
        for name, child in self.named_children():
            own = (p for p in (*child.parameters(), *child.buffers()) if name not in trained or p not in shared)
            found[name] = sum(local(p).nbytes for p in own)
        for role in self.role_names():
            for part in parts(self.role_optimizer(role).optimizer):
                kept = [v for state in getattr(part, "state", {}).values() for v in state.values()]
                found[role] = found.get(role, 0) + sum(local(v).nbytes for v in kept if isinstance(v, Tensor))
        return {name: size for name, size in found.items() if size}

    def parameter_names(self) -> dict[Tensor, str]:
        """Name of every parameter in this module."""
        return {p: name for name, p in self.named_parameters()}

    def trained_state(self) -> dict[str, Tensor]:
        """Weights and buffers of the trained submodules, as they lie on this rank, without what frozen ones own."""
        trained, shared = tuple(f"{name}." for name in self.trained_submodules()), self.shared_weights()
        return {k: v for k, v in self.state_dict(keep_vars=True).items() if k.startswith(trained) and v not in shared}

    def shared_weights(self) -> set[Tensor]:
        """Parameters of the submodules that this stage leaves as they are; roles may be adapters on them."""
        trained = self.trained_submodules()
        return {p for name, child in self.named_children() if name not in trained for p in child.parameters()}

    def trained_submodules(self) -> list[str]:
        """Names of the submodules whose weights change in this stage."""
        wanted = {id(m) for modules in self.role_modules.values() for m, _ in modules}
        return [name for name, child in self.named_children() if id(child) in wanted]

    def extra_state(self) -> dict[str, Any]:
        """Further state of this rank in the stage (rollout memory); tensors, numbers, strings, lists and dicts only."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`extra_state`."""
