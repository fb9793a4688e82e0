"""In the place of a video codec where there is sound alone (an orchestrator trained on speech corpora)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from streamchar.codecs.fingerprint import fingerprint
from streamchar.errors import InputError


class NoPictures:
    """See :class:`streamchar.codecs.protocol.VideoCodec`: it is fitted on nothing, and has no latents."""

    kind = "none"
    channels = 1
    """The width of the empty video groups that batches of sound carry."""
    spatial_stride = 8
    temporal_stride = 4

    def fit(self, clips: Iterable[Tensor]) -> NoPictures:
        """Nothing to do."""
        return self

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.kind, self.settings(), self.state_dict())

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing to load."""

    def encode(self, frames: Tensor) -> Tensor:
        """Raises InputError."""
        raise InputError("codec.video.kind=none has no latents of pictures; choose pca or another video codec")

    def decode(self, latents: Tensor) -> Tensor:
        """Raises InputError."""
        raise InputError("codec.video.kind=none has no pictures; choose pca or another video codec")
