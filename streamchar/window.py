"""How much of everything one chunk is conditioned on: the memory's window sizes, shared by data items and streams."""

from __future__ import annotations

from dataclasses import dataclass

from streamchar.clock import ChunkClock


@dataclass
class WindowConfig:
    """Sizes of the context groups around one chunk."""

    sink_latents: int = 3
    """Video latents of the first chunk kept as sink."""
    motion_latents: int = 5
    """Last video latents of the previous chunk (at most a chunk's own)."""
    past_audio_s: float = 0.32
    """Seconds of own sound given to the denoiser as clean context; 0 turns the group off."""
    anchor_s: float = 1.0
    """Seconds of the pinned voice prompt in the orchestrator's history (<= 3)."""
    recent_s: float = 2.0
    """Seconds of latest sound in the orchestrator's history (<= 12)."""
    max_spoken: int = 8
    """Text units of the spoken text inside the history window."""
    max_todo: int = 10
    """Text units still to say that the orchestrator sees."""

    def anchor_latents(self, clock: ChunkClock) -> int:
        """Audio latents of the voice anchor."""
        return round(self.anchor_s * clock.audio_rate)

    def recent_latents(self, clock: ChunkClock) -> int:
        """Audio latents of recent history."""
        return round(self.recent_s * clock.audio_rate)

    def past_latents(self, clock: ChunkClock) -> int:
        """Audio latents of the denoiser's past group."""
        return round(self.past_audio_s * clock.audio_rate)

    def history_time(self, clock: ChunkClock, k: int) -> list[float]:
        """Start of every history slot relative to chunk ``k``'s start, in seconds (all negative).

        First the anchor's slots, at fixed times just before the recent part; then the recent slots, of which the
        last ends where the chunk's first audio latent starts.
        """
        anchor, recent = self.anchor_latents(clock), self.recent_latents(clock)
        first = -(anchor + recent) / clock.audio_rate
        times = [first + i / clock.audio_rate for i in range(anchor)]
        newest = clock.audio_offset(k)
        return times + [newest - (recent - i) / clock.audio_rate for i in range(recent)]

    def audio_time(self, clock: ChunkClock, k: int) -> list[float]:
        """Start of each of chunk ``k``'s audio latents relative to the chunk's start, in seconds."""
        return [clock.audio_offset(k) + i / clock.audio_rate for i in range(clock.carried(k))]
