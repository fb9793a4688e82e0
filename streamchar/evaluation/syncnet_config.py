"""What our SyncNet looks at, its size, and how long it trains. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SyncNetConfig:
    """Our SyncNet and its training."""

    region: tuple[float, float, float, float] = (0.25, 0.5, 0.75, 0.9)
    """x0, y0, x1, y1 of the mouth's half of the face, in shares of the picture."""
    height: int = 40
    """Rows of the picture that the network sees."""
    width: int = 48
    """Columns of the picture that the network sees."""
    mels: int = 40
    """Mel bands of the sound."""
    channels: int = 24
    """Channels of the first picture layer."""
    dim: int = 128
    """Channels of an embedding."""
    steps: int = 1100
    """Training steps."""
    clips_per_step: int = 8
    """Clips of one step; their windows are one another's negatives."""
    windows_per_clip: int = 16
    """Windows drawn from each of these clips: the negatives of the same clip at other times."""
    lr: float = 1.5e-3
    """Highest learning rate."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        x0, y0, x1, y1 = self.region
        found = [] if 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 else [
            f"syncnet.region={self.region} must be x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"]
        found += [f"syncnet.{name}={getattr(self, name)} must be at least {least}" for name, least in
                  (("height", 16), ("width", 16), ("mels", 8), ("channels", 1), ("dim", 2), ("steps", 1),
                   ("clips_per_step", 1), ("windows_per_clip", 2)) if getattr(self, name) < least]
        if self.lr <= 0:
            found.append(f"syncnet.lr={self.lr} must be positive")
        return found
