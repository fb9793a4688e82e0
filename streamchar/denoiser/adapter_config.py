"""Options of low-rank adapters. Plain values, free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

MATRICES = ("to_q", "to_k", "to_v", "to_out", "up", "down")
"""Matrices of a block that adapters can be laid on: attention's four, and the two of each expert."""


@dataclass
class AdapterConfig:
    """Low-rank adapters: ``W x + alpha / rank * B A x`` with a frozen W (LoRA, Hu et al. 2021, section 4.1)."""

    rank: int = 64
    """Rows of A and columns of B."""
    alpha: float = 64.0
    """Scale of what the adapter adds, divided by ``rank``."""
    targets: list[str] = field(default_factory=lambda: list(MATRICES))
    """Matrices of every block that are adapted. All else stays the base's: in and out projections, embeddings, norms,
    tables, biases."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.rank < 1 or self.alpha <= 0:
            found.append(f"{where}: rank={self.rank} must be at least 1 and alpha={self.alpha} positive")
        unknown = [t for t in self.targets if t not in MATRICES]
        if unknown or not self.targets:
            found.append(f"{where}.targets={self.targets} must name some of {', '.join(MATRICES)}")
        return found
