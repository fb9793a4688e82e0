"""Prepared GRID clips against the corpus: word times beside the published ones, and the lag of mouth and sound.

    python benchmarks/intake_check.py runs/NAME/prepare/shards FOLDER_OF_ALIGN_FILES FOLDER_OF_FACE_MODELS

The clips are decoded from the shards; a clip's start in its recording (its JSON) takes its words back to the
recording's clock. The lag is that of the mean correlation curve over all clips, since one clip of 3 s says little.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.clip import Clip  # noqa: E402
from datamodules.clip_reader import read_clips  # noqa: E402
from datamodules.intake.transcripts import read_transcript  # noqa: E402
from datamodules.quarantine import Quarantine  # noqa: E402
from datamodules.shards import expand_shards  # noqa: E402
from streamchar.evaluation.face_mesh import FaceMeshMouth  # noqa: E402
from streamchar.evaluation.sync import DETAIL_S, SyncScore, mean_score, sync_score  # noqa: E402


def word_errors(clip: Clip, align: Path) -> list[float]:
    """Seconds by which starts and ends of the clip's words differ from the published ones."""
    tokens = read_transcript(align)[0].tokens or ()
    begin = clip.meta["source"]["start"]
    if [w.text for w in clip.words] != [t.text for t in tokens]:
        raise SystemExit(f"{clip.key}: words {[w.text for w in clip.words]}, published {[t.text for t in tokens]}")
    return [d for w, t in zip(clip.words, tokens, strict=True)
            for d in (w.start + begin - t.start, w.end + begin - t.end)]


def lag(clip: Clip, mouth: FaceMeshMouth, detail_s: float) -> SyncScore:
    """Mouth against sound in the decoded clip."""
    assert clip.frames is not None
    opening = mouth.opening(clip.frames.permute(0, 2, 3, 1).numpy())
    return sync_score(opening, clip.wave.numpy(), clip.fps, clip.sample_rate, detail_s=detail_s)


def main(shards: str, aligned: str, models: str) -> None:
    """Print both measures."""
    clips = list(read_clips(expand_shards(shards), Quarantine(max_rate=0)))
    published = {c.key: Path(aligned) / Path(c.meta["source"]["file"]).with_suffix(".align").name for c in clips}
    errors = np.abs([e for c in clips for e in word_errors(c, published[c.key])])
    print(f"{len(clips)} clips, {len(errors) // 2} words: starts and ends differ from the published ones by "
          f"{1e3 * np.median(errors):.0f} ms (median), {1e3 * np.mean(errors):.0f} ms (mean), "
          f"{1e3 * np.max(errors):.0f} ms (most)")
    mouth = FaceMeshMouth(Path(models) / "face_landmarks_detector.tflite")
    for name, detail_s in (("all movements", 0.0), ("syllables", DETAIL_S)):
        score = mean_score([lag(c, mouth, detail_s) for c in clips])
        print(f"mouth and sound, {name}: lag {score.lag:+.0f} frames, correlation {score.best:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
