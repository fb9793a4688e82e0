"""What became of all recordings: counts per reason, every clip and rejection, and a picture of the clips for people."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from datamodules.intake.keys import Hashes
from datamodules.intake.rejection import REASONS
from datamodules.intake.sample import recording_of
from datamodules.intake.staging import SourceRecord, Staging

CLIPS, PUT_ASIDE = "clips.jsonl", "put_aside.jsonl"
SHEET_CLIPS, COLUMNS, SIDE = 60, 10, 96


def write_report(records: Iterable[SourceRecord], staging: Staging, folder: Path) -> dict[str, Any]:
    """Write ``report.json`` (the counts), ``clips.jsonl`` and ``put_aside.jsonl`` (a line for each) and, where there
    are pictures, ``contact_sheet.jpg``; returns the counts."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seconds = 0.0
    speakers, pictured = Hashes(), Sampled(SHEET_CLIPS)
    parts = {name: folder / f".{name}.tmp" for name in (CLIPS, PUT_ASIDE)}
    with open(parts[CLIPS], "wb") as clips, open(parts[PUT_ASIDE], "wb") as aside:
        for record in records:
            counts["recordings"] += record.recordings
            counts["recordings_used"] += len({recording_of(c["key"]) for c in record.clips})
            for clip in record.clips:
                counts["clips"] += 1
                seconds += clip["seconds"]
                speakers.add(str(clip["speaker"]))
                counts["sync_not_judged"] += "sync" in clip["measured"] and clip["measured"]["sync"] is None
                _line(clips, clip)
            for row in record.rejections:
                reasons[row.reason] += 1
                _line(aside, asdict(row))
            if record.clips and staging.still(record.key).is_file():
                pictured.add(record.key)
    for name, part in parts.items():
        os.replace(part, folder / name)
    summary: dict[str, Any] = {"recordings": counts["recordings"], "recordings_used": counts["recordings_used"],
                               "clips": counts["clips"], "seconds": round(seconds, 3), "speakers": speakers.distinct(),
                               "rejected": reasons.total(), "sync_not_judged": counts["sync_not_judged"],
                               "reasons": {r: reasons[r] for r in REASONS if reasons[r]}}
    body = {**summary, "meaning": {r: REASONS[r] for r in summary["reasons"]}}
    (folder / "report.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    contact_sheet(pictured.rows(), staging, folder / "contact_sheet.jpg")
    return summary


def _line(file: BinaryIO, row: dict[str, Any]) -> None:
    """One row; what a file's name holds that is no character is written as an escape of JSON."""
    file.write(json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")


class Sampled:
    """Up to ``most`` names spread evenly over those that are added, of which up to twice as many are in memory."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: list[str] = []
        self._every, self._count = 1, 0

    def add(self, name: str) -> None:
        """One more."""
        if self._count % self._every == 0:
            self._kept.append(name)
        self._count += 1
        if len(self._kept) > 2 * self.most:
            self._kept, self._every = self._kept[::2], 2 * self._every

    def rows(self) -> list[str]:
        """In the order in which they were added."""
        step = max(len(self._kept) / self.most, 1.0)
        return [self._kept[int(i * step)] for i in range(min(len(self._kept), self.most))]


def contact_sheet(keys: list[str], staging: Staging, path: Path) -> None:
    """Pictures of the clips of these recordings, ``SHEET_CLIPS`` or about as many."""
    from PIL import Image

    if not keys:
        path.unlink(missing_ok=True)
        return
    pictures: list[Any] = []
    for key in keys:
        with Image.open(staging.still(key)) as row:
            count = row.width // row.height
            taken = max(SHEET_CLIPS // len(keys), 1)
            pictures += [row.crop((i * SIDE, 0, (i + 1) * SIDE, SIDE)) for i in range(min(count, taken))]
    columns = min(COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * SIDE, -(-len(pictures) // columns) * SIDE))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * SIDE, i // columns * SIDE))
    sheet.save(path, quality=85)
