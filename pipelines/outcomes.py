"""What the stages that do not train have made, in figures, tags and pages for a dashboard; read from their folders."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.latent_format import INDEX_NAME, LatentIndex
from datamodules.shards import ShardIndex
from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory
from pipelines.stored_latents import SPLITS
from streamchar.evaluation.report import Report

MOST_REASONS = 20


@dataclass
class Outcome:
    """figures: by metric name. tags: settings and pointers, which may change when the stage runs again, as params may
    not. files: paths below the stage's folder of which a copy is kept."""

    figures: dict[str, float]
    tags: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def outcome(cfg: RunConfig, directory: RunDirectory) -> Outcome:
    """Of ``cfg.stage``, which is complete."""
    return {"prepare": _prepared, "encode": _encoded, "evaluate": _evaluated}[cfg.stage](
        cfg, directory.stage(cfg.stage))


def _prepared(cfg: RunConfig, folder: Path) -> Outcome:
    index = ShardIndex.load(folder / "shards" / "shards.json")
    figures = {"data/clips": index.samples, "data/hours": index.seconds / 3600, "data/shards": len(index.entries),
               "data/megabytes": sum(entry.bytes for entry in index.entries.values()) / 1e6}
    found = Outcome(figures, {"recipe": cfg.prepare.recipe})
    if cfg.prepare.recipe == "puppet":
        found.files.append("contact_sheet.png")
        return found
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    aside = told["rejected"]
    figures |= {"data/recordings": told["recordings"], "data/speakers": told["speakers"], "data/put_aside": aside,
                "data/used_share": told["recordings_used"] / max(told["recordings"], 1),
                "data/put_aside_share": aside / max(aside + told["clips"], 1),
                **_reasons("put_aside/", told["reasons"])}
    found.tags["report"] = str(folder / "report.json")
    found.files.append("contact_sheet.jpg")
    return found


def _encoded(cfg: RunConfig, folder: Path) -> Outcome:
    found = Outcome({})
    for split in SPLITS:
        path = folder / "latents" / split / INDEX_NAME
        index = LatentIndex.from_json(path.read_bytes(), str(path))
        clips = sum(shard["clips"] for shard in index.shards)
        recorded = sum(shard["clips"] for shard in index.shards if shard.get("recorded", True))
        lost = len(index.quarantined)
        found.figures |= {f"data/{split}_clips": clips, f"data/{split}_shards": len(index.shards),
                          f"data/{split}_hours": sum(shard["seconds"] for shard in index.shards) / 3600,
                          f"data/{split}_megabytes": sum(shard["bytes"] for shard in index.shards) / 1e6,
                          f"data/{split}_put_aside": lost,
                          f"data/{split}_put_aside_share": lost / max(lost + recorded, 1),
                          **_reasons(f"put_aside/{split}_", Counter(row["reason"] for row in index.quarantined))}
        found.tags |= {"codec.video": f"{cfg.codec.video.kind} {index.video_codec}",
                       "codec.audio": f"{cfg.codec.audio.kind} {index.audio_codec}"}
    return found


def _evaluated(cfg: RunConfig, folder: Path) -> Outcome:
    report = Report.load(folder)
    facts = {f"evaluated.{_name(str(key))}": str(value) for key, value in report.facts.items()}
    return Outcome(report.metrics(), {**facts, "page": str(folder / "index.html")},
                   ["index.html", "table.txt", "report.json", *report.pictures.values()])


def _reasons(prefix: str, counts: Any) -> dict[str, float]:
    """The commonest reasons why something was put aside; what follows a colon tells one clip from another."""
    summed: Counter[str] = Counter()
    for reason, number in counts.items():
        summed[_name(reason.split(":")[0])] += number
    return {f"{prefix}{reason}": float(number) for reason, number in summed.most_common(MOST_REASONS)}


def _name(text: str) -> str:
    return re.sub(r"[^\w-]+", "_", text.strip())[:60]
