"""What became of all recordings: counts per reason, every rejection, and a picture of the clips for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.intake.rejection import REASONS
from datamodules.intake.sample import recording_of
from datamodules.intake.staging import SourceRecord, Staging

SHEET_CLIPS, COLUMNS, SIDE = 60, 10, 96


def write_report(records: Sequence[SourceRecord], staging: Staging, folder: Path) -> dict[str, Any]:
    """Write ``report.json`` and, where there are pictures, ``contact_sheet.jpg``; returns the report's summary."""
    clips = [c for r in records for c in r.clips]
    rejected = [row for r in records for row in r.rejections]
    counts = Counter(row.reason for row in rejected)
    summary = {"recordings": sum(r.recordings for r in records),
               "recordings_used": len({recording_of(c["key"]) for c in clips}),
               "clips": len(clips), "seconds": round(sum(c["seconds"] for c in clips), 3),
               "speakers": len({c["speaker"] for c in clips}), "rejected": len(rejected),
               "sync_not_judged": sum("sync" in c["measured"] and c["measured"]["sync"] is None for c in clips),
               "reasons": {r: counts[r] for r in REASONS if counts[r]}}
    body = {**summary, "meaning": {r: REASONS[r] for r in summary["reasons"]},
            "rejections": [asdict(r) for r in rejected], "made": clips}
    (folder / "report.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    contact_sheet(records, staging, folder / "contact_sheet.jpg")
    return summary


def contact_sheet(records: Sequence[SourceRecord], staging: Staging, path: Path) -> None:
    """One picture of each clip, up to ``SHEET_CLIPS`` of them spread over the recordings."""
    from PIL import Image

    used = [r.key for r in records if r.clips and staging.still(r.key).is_file()]
    if not used:
        path.unlink(missing_ok=True)
        return
    step = max(len(used) / SHEET_CLIPS, 1.0)
    pictures: list[Any] = []
    for key in (used[int(i * step)] for i in range(min(len(used), SHEET_CLIPS))):
        with Image.open(staging.still(key)) as row:
            count = row.width // row.height
            taken = max(SHEET_CLIPS // len(used), 1)
            pictures += [row.crop((i * SIDE, 0, (i + 1) * SIDE, SIDE)) for i in range(min(count, taken))]
    columns = min(COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * SIDE, -(-len(pictures) // columns) * SIDE))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * SIDE, i // columns * SIDE))
    sheet.save(path, quality=85)
