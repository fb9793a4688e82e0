"""Draws the curves of docs/training.md: ``python docs/plot_training.py OUT.png STAGE LABEL=RUN/STAGE [LABEL=...]``.

One panel per figure that is read in that stage, one line per run; a dashed line is what the figure stands beside (the
constant guess, the undistilled teacher, a spread of 1).
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from callbacks.metrics_file import read_rows

PANELS: dict[str, list[tuple[str, tuple[tuple[str, str | float | None], ...]]]] = {
    "orchestrator": [
        ("sound loss by noise level (t0 clean .. t3 noise)", tuple((f"train/audio_t{i}", None) for i in range(4))),
        ("held-out sound loss, averaged weights", (("eval/audio", None),)),
        ("pointer error, words", (("pointer/error_words", "pointer/constant_rate_error"),)),
        ("gradient norm", (("stability/grad_norm_orchestrator", None),))],
    "teacher": [
        ("loss of pictures and sound", (("train/video", None), ("train/audio", None))),
        ("picture loss by noise level", tuple((f"train/video_t{i}", None) for i in range(4))),
        ("held-out losses, averaged weights", (("eval/video", None), ("eval/audio", None))),
        ("gradient norm", (("stability/grad_norm_teacher", None),))],
    "dmd": [
        ("energy distance to the teacher, pictures", (("eval/student_energy_video", "eval/teacher_few_energy_video"),)),
        ("energy distance to the teacher, sound", (("eval/student_energy_audio", "eval/teacher_few_energy_audio"),)),
        ("spread of latents, pictures", (("eval/student_spread_video", 1.0),)),
        ("spread of latents, sound", (("eval/student_spread_audio", 1.0),)),
        ("critic's loss", (("train/critic", None),)),
        ("size of the gradient, pictures", (("train/dmd_gradient_video", None),)),
        ("trajectory loss, sound", (("train/trajectory_audio", None),)),
        ("critic's gradient norm", (("stability/grad_norm_critic", None),))]}
PANELS["rollout"] = [*PANELS["dmd"][:4],
                     ("Frechet distance of latents, pictures",
                      (("eval/student_frechet_video", "eval/teacher_few_frechet_video"),)),
                     ("trajectory loss, pictures", (("train/trajectory_video", None),)),
                     ("trajectory loss, sound", (("train/trajectory_audio", None),)),
                     ("chunks of a rollout", (("train/chunks", None),))]


def series(rows: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one metric where it was logged."""
    found = [(r["step"], r[name]) for r in rows if r.get(name) is not None]
    return np.array([s for s, _ in found], float), np.array([v for _, v in found], float)


def smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over an eighth of the curve for what is logged often; sparse curves stay as they are."""
    width = len(values) // 8
    if width < 4:
        return values
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def draw(out: Path, stage: str, runs: dict[str, Path]) -> None:
    """Write the picture."""
    panels = PANELS[stage]
    figure, axes = plt.subplots(-(-len(panels) // 4), 4, figsize=(16, 3.2 * -(-len(panels) // 4)), squeeze=False)
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    rows = {label: list(read_rows(path / "metrics.jsonl")) for label, path in runs.items()}
    for axis, (title, names) in zip(axes.flat, panels, strict=False):
        number = 0
        for label, logged in rows.items():
            for name, beside in names:
                steps, values = series(logged, name)
                if not len(steps):
                    continue
                colour, tag = colours[number % len(colours)], name.rpartition("/")[2] if len(names) > 1 else ""
                axis.plot(steps, smooth(values), color=colour, marker="." if len(steps) < 20 else "",
                          label=" ".join(filter(None, (label if len(rows) > 1 else "", tag))))
                if isinstance(beside, str):
                    axis.plot(*series(logged, beside), "--", color=colour, alpha=0.6)
                elif beside is not None:
                    axis.axhline(beside, ls="--", color="0.5", lw=1)
                number += 1
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        if any(text for text in axis.get_legend_handles_labels()[1]):
            axis.legend(fontsize=7)
    for axis in axes.flat[len(panels):]:
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(out, dpi=70)


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if len(arguments) < 3 or arguments[1] not in PANELS:
        print(f"{__doc__}\nSTAGE is one of {', '.join(PANELS)}", file=sys.stderr)
        return 2
    pairs = [argument.partition("=") for argument in arguments[2:]]
    runs = {label: path for label, _, path in pairs}
    if not all(path for _, _, path in pairs) or len(runs) < len(pairs):
        print(f"each run needs a name of its own: LABEL=RUN/STAGE; got {' '.join(arguments[2:])}", file=sys.stderr)
        return 2
    missing = [path for path in runs.values() if not (Path(path) / "metrics.jsonl").is_file()]
    if missing:
        print(f"no metrics.jsonl in {', '.join(missing)}: give the folder of a run's stage", file=sys.stderr)
        return 2
    Path(arguments[0]).absolute().parent.mkdir(parents=True, exist_ok=True)
    draw(Path(arguments[0]), arguments[1], {label: Path(path) for label, path in runs.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
