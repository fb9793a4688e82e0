"""``stage=report runs=a,b,c``: one offline page that compares runs of one root."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.config.schema import RunConfig
from pipelines.reporting.media import Media
from pipelines.reporting.page import page
from pipelines.reporting.reading import read_runs
from pipelines.run_directory import write_atomically
from streamchar.errors import InputError

log = logging.getLogger(__name__)


def run(cfg: RunConfig) -> Path:
    """Write the page and return its path; what a run lacks is said on it, and here.

    Raises:
        InputError: an unknown run, or a page that cannot be written.
    """
    root, options = Path(cfg.root), cfg.report
    runs = read_runs(root, options.names())
    out = Path(options.out) if options.out else root / "report.html"
    media = Media(out, int(options.embed_mb * 1e6))
    text = page(runs, media)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, text)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}; give another file as out=") from error
    for found in runs:
        for line in found.missing:
            log.info("%s lacks %s", found.name, line)
    log.info("%d runs, %.1f MB, %d videos and pictures inside, %d linked", len(runs), len(text) / 1e6, media.embedded,
             media.linked)
    return out
