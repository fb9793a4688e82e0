"""Why a recording, or a part of it, is not used: a reason from a fixed list, so that reasons can be counted."""

from __future__ import annotations

from dataclasses import dataclass

REASONS = {
    "unreadable": "it cannot be decoded",
    "no video": "it holds no pictures",
    "no sound": "it holds no sound",
    "no transcript": "no text beside it, and no recogniser is given (intake.asr)",
    "bad transcript": "the text beside it cannot be read",
    "text does not fit": "the aligner cannot find the text's words in the sound",
    "no speech": "nobody speaks",
    "too short": "shorter than intake.min_s",
    "no face": "the face is in fewer frames than intake.min_face_share",
    "several faces": "more faces than intake.max_faces",
    "small face": "the face is smaller than intake.min_face_px",
    "blur": "less detail than intake.min_sharpness",
    "clipping": "more samples at full scale than intake.max_clipped",
    "off-screen voice": "mouth and sound do not go together (intake.min_sync, intake.max_lag)",
    "crashed": "reading it failed in a way that nobody expected",
}


class Rejected(Exception):
    """A recording, or a part of it, is put aside.

    Args:
        reason: one of :data:`REASONS`.
        detail: what was measured or said, for the report.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Rejection:
    """One row of the report: ``file`` from ``start`` to ``end`` seconds (None: to its end) is not used."""

    file: str
    start: float
    end: float | None
    reason: str
    detail: str = ""
