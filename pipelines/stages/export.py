"""``stage=export from=STAGE out=DIR``: a whole character in one folder, for others to load."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.build import load_character, load_codecs, model_spec, trained_stage
from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory
from streamchar.errors import InputError
from streamchar.hub.pretrained import export_character

log = logging.getLogger(__name__)

_CARD = """# {name}

A StreamChar character, exported from stage `{stage}` ({role} weights) of the run `{name}`, preset `{preset}`.

```python
from streamchar.hub import from_pretrained

character = from_pretrained("{folder}")
```

`config.json` holds all sizes, `model.safetensors` denoiser, orchestrator and codecs (float32).
"""


def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``README.md``.

    Raises:
        InputError: where there is no such model, or the folder cannot be written.
    """
    stage, role = trained_stage(directory, cfg.export.from_stage), cfg.export.role
    out = Path(cfg.export.out) if cfg.export.out else directory.stage("export")
    character = load_character(directory, cfg, stage, role)
    spec = model_spec(cfg, load_codecs(directory))
    spec.extra = {"run": cfg.name, "preset": cfg.preset, "stage": stage, "role": role}
    card = _CARD.format(name=cfg.name, stage=stage, role=role, preset=cfg.preset, folder=out.name)
    try:
        export_character(character, spec, out, card)
    except OSError as error:
        raise InputError(f"cannot write the model to {out}: {error.strerror or error}; free some space or choose "
                         "another out=") from error
    size = (out / "model.safetensors").stat().st_size
    log.info("exported %s (%s) to %s: %.1f MB", stage, role, out, size / 1e6)
