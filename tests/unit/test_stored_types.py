"""Weights as they lie in an exported file."""

from __future__ import annotations

import pytest
import torch

from pipelines.config.schema import ExportConfig
from streamchar.hub.stored_types import KINDS, restored, stored


def weights() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    scales = torch.logspace(-3, 2, 8)
    return {"matrix": torch.randn(8, 64, generator=g) * scales[:, None], "filter": torch.randn(4, 3, 5, 5, generator=g),
            "zeros": torch.zeros(3, 2), "bias": torch.randn(7, generator=g), "count": torch.tensor(5)}


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_integers_come_back(kind: str) -> None:
    back = restored(stored(weights(), kind))
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in weights().items()}
    assert back["count"].dtype == torch.int64 and back["count"] == 5
    assert not back["zeros"].any()


def test_eight_bits_are_off_by_half_a_step_of_their_own_row_at_most() -> None:
    given, back = weights(), restored(stored(weights(), "int8"))
    for name in ("matrix", "filter"):
        off, most = (back[name] - given[name]).abs().flatten(1).amax(1), given[name].abs().flatten(1).amax(1)
        assert (off <= 1.001 * most / 254).all()
        assert (off > most / 2000).all()  # they were rounded


def test_float32_is_exact_and_eight_bits_are_a_quarter() -> None:
    given = {"matrix": torch.randn(256, 256)}
    assert torch.equal(restored(stored(given, "float32"))["matrix"], given["matrix"])

    def size(kind: str) -> int:
        return sum(t.numel() * t.element_size() for t in stored(given, kind).values())

    assert size("int8") < 0.26 * size("float32")


def test_the_configuration_knows_the_same_kinds() -> None:
    assert not any(ExportConfig(dtype=kind).problems() for kind in KINDS)
    assert f"one of {', '.join(KINDS)}" in ExportConfig(dtype="int4").problems()[0]
