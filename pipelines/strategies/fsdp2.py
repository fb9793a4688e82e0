"""``strategy=fsdp2``: all models shared out over the ranks, block by block, by Lightning's ModelParallelStrategy."""

from __future__ import annotations

from typing import cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lightning_modules.stage_module import StageModule
from pipelines.strategies.stored_whole import StoredWhole
from streamchar.distributed.sharding import Sharding


class Fsdp2(StoredWhole, ModelParallelStrategy):
    """FSDP, or HSDP where ``shard_ranks`` is less than all ranks.

    Args:
        backend: ``nccl`` or ``gloo``.
        shard_ranks: ranks over which one copy is shared out; 0: all.
        compute: type in which gathered parameters are used; None: float32.
        frozen: ``shard``, ``offload`` (to the CPU) or ``replicate`` for models that do not learn.
    """

    sharded = True

    def __init__(self, backend: str, shard_ranks: int, compute: torch.dtype | None, frozen: str) -> None:
        super().__init__(process_group_backend=backend)
        self.shard_ranks, self.compute, self.frozen = shard_ranks, compute, frozen

    def setup_environment(self) -> None:
        # Lightning's mesh has a data and a tensor dimension; here the whole world is one copy, or several.
        self._data_parallel_size, self._tensor_parallel_size = self.world_size_of_all(), 1
        super().setup_environment()
        mesh = sharding_mesh(self.root_device.type, self.world_size, self.shard_ranks)
        cast(StageModule, self.lightning_module).sharding = Sharding(
            mesh, self.compute, frozen=self.frozen != "replicate", offload_frozen=self.frozen == "offload")

    def world_size_of_all(self) -> int:
        """Ranks on all nodes."""
        return self.num_nodes * self.num_processes


def sharding_mesh(device: str, world: int, shard_ranks: int) -> DeviceMesh:
    """(shard,) over all ranks, or (replicate, shard) where a copy takes ``shard_ranks`` of them."""
    if shard_ranks in (0, world):
        return init_device_mesh(device, (world,), mesh_dim_names=("shard",))
    return init_device_mesh(device, (world // shard_ranks, shard_ranks), mesh_dim_names=("replicate", "shard"))
