"""``evaluate.gate=true``: does it say what it learnt by heart, from picture, voice and text, without its data?"""

from __future__ import annotations

from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datamodules.latent_shards import LatentStore
from pipelines.build import load_character
from pipelines.config.schema import RunConfig
from pipelines.evaluating.mouths import choose_mouth
from pipelines.gate.judging import face_lines, hear_all, mouth_lines, word_lines
from pipelines.gate.material import gate_clips
from pipelines.gate.showing import save_json, save_pictures
from pipelines.gate.speaking import chunk_limit, conditions_of, speak_together
from pipelines.moved_data import data_moved_aside
from pipelines.run_directory import RunDirectory
from pipelines.stages.stream import plan_of
from streamchar.errors import StreamCharError
from streamchar.evaluation.recogniser import recogniser_for
from streamchar.evaluation.verdict import failed, verdict_table


def run_gate(cfg: RunConfig, directory: RunDirectory, console: Console) -> None:
    """Write ``evaluate/gate/`` (``gate.json``, prompts, mp4s, ``strip.png``) and print the lines.

    Raises:
        StreamCharError: where a line does not hold; everything has been written by then.
        InputError: where the run has no model, or clips that cannot be swapped.
    """
    folder = directory.stage("evaluate") / "gate"
    character = load_character(directory, cfg, cfg.evaluate.from_stage)
    clock, (video, audio) = character.clock, character.codecs()
    train = LatentStore(directory.input("encode", "latents/train"), clock,
                        {"video": video.fingerprint, "audio": audio.fingerprint})
    plan = plan_of(character, cfg.evaluate.steps)
    columns = (TextColumn("gate: {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        clips = gate_clips(cfg, train, character, folder / "prompts", bar)
        mouth = choose_mouth(cfg.evaluate, train, [], video)
        conditions = conditions_of(clips)
        del train, character
        with data_moved_aside(directory) as moved:
            character = load_character(directory, cfg, cfg.evaluate.from_stage)  # codecs and checkpoints are all it has
            for condition in conditions:
                task = bar.add_task(condition.name, total=chunk_limit(clips, character))
                speak_together(condition, clips, character, plan, cfg.data.size, cfg.evaluate.seed,
                               partial(bar.advance, task))
                console.print(f"gate: {condition.name}: {len(clips)} streams in {condition.seconds:.1f} s")
        heard = hear_all(clips, conditions, recogniser_for(c.text for c in clips), clock, cfg.evaluate.seed, bar)
    lines = word_lines(clips, conditions, heard) + face_lines(clips, conditions)
    if mouth is not None:
        lines += mouth_lines(clips, conditions, mouth, clock, cfg.evaluate.max_lag)
    facts = {"run": directory.name, "from_stage": cfg.evaluate.from_stage, "steps": plan.steps, "clips": len(clips),
             "seed": cfg.evaluate.seed, "fps": clock.fps, "sample_rate": clock.sample_rate,
             "moved_away": [str(path.relative_to(directory.path)) for path in moved]}
    save_json(folder, lines, clips, conditions, heard, facts)
    save_pictures(folder, clips, conditions, heard, clock)
    wide = console if console.is_terminal and console.width >= 120 else Console(width=max(console.width, 150))
    wide.print(verdict_table(lines, f"The gate: {len(clips)} clips learnt by heart, streamed without their data"))
    console.print(f"gate: {folder / 'strip.png'}, {folder / 'gate.json'}", soft_wrap=True)
    wrong = failed(lines)
    if wrong:
        raise StreamCharError(f"the gate is not passed: {len(wrong)} of {sum(x.passed is not None for x in lines)} "
                              f"lines fail ({'; '.join(f'{x.group}: {x.name}' for x in wrong)}); see {folder}")
    console.print("[green]gate: passed[/]")
