"""How much memory the short protocol will hold at once: the pictures of all clips in every column, and their latents.

Measures go over all clips one after another, so all are held; 500 clips of 3 s at 512 x 512 and 25 fps are 27 GiB a
column.
"""

from __future__ import annotations

from pathlib import Path

from datamodules.evaluation_set import EvaluationSet
from pipelines.evaluating.showing import SHOWN
from streamchar.clock import ChunkClock
from streamchar.evaluation.config import EvaluateConfig


def room_wanted(chosen: EvaluationSet, options: EvaluateConfig, columns: int, clock: ChunkClock, size: int,
                together: int) -> int:
    """Bytes, if streams are as long as the clips whose text they say.

    columns: models that stream. size: pixels of a side. together: streams that are generated at once, which are held
    twice until they are joined, as is the one of ``drift_s``.
    """
    pictures = clock.fps * 3 * size**2  # bytes a second
    latents = 4 * chosen.clips[0].video(0)[0].size / float(clock.chunk_seconds)
    long = [clip.record.seconds for clip in chosen.clips]
    said = [min(seconds, options.seconds) for seconds in long]
    recorded = sum(clip.record.seconds for clip in chosen.clips if Path(clip.record.source).is_file())
    spoken = len(long) + options.new_sentences
    more = max(min(SHOWN, spoken * options.seeds) - len(long), 0)  # shown, and not scored
    whole = sum(long) + recorded + sum(long) * options.cheats  # codec, real, noise; the other cheats share pictures
    made = columns * (sum(said) + more * max(said)) + min(together, spoken) * max(said) + 2 * options.drift_s
    return round(pictures * (whole + made) + latents * (sum(long) + columns * sum(said)))
