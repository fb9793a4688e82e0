"""Every strategy stores the same checkpoint: whole tensors by name, gathered and placed by the module itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch.optim import Optimizer

from callbacks import checkpoint_files as files


class StoredWhole:
    """For a strategy, in place of its own ways to save and restore weights and optimisers."""

    sharded = False
    """Whether a forward pass needs all ranks."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are placed when models are shared out (if they are) and before optimisers are built."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Tensors stay in the file until a rank takes its part of them."""
        path = Path(checkpoint_path)
        return files.load(path.parent, path.name)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: ``checkpoint_state_dict`` has it, without what is frozen."""
        return {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Weights are restored with the callbacks, by ``load_checkpoint_state``."""

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Nothing: ``checkpoint_state_dict`` has it by name."""
        return {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """From the names, when the optimisers are there."""
        module = cast(Any, cast(Strategy, self).lightning_module)
        module.load_optimizer_states(checkpoint["module"])


class Single(StoredWhole, SingleDeviceStrategy):
    """One process on one device."""


class Replicated(StoredWhole, DDPStrategy):
    """DDP: whole copies, averaged gradients."""
