"""The short protocol: held-out clips and new sentences, a few seconds each, by the model and perhaps its teacher."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from rich.progress import Progress

from datamodules.evaluation_set import EvaluationSet
from datamodules.latent_shards import LatentStore
from pipelines.build import alone, load_character, load_speech
from pipelines.config.schema import RunConfig
from pipelines.evaluating.cheats import add_cheats
from pipelines.evaluating.devices import open_devices
from pipelines.evaluating.distributions import latent_rows
from pipelines.evaluating.looks import drift_rows
from pipelines.evaluating.material import SEED_MARK, Rendering, Subject, held_out, other_looks
from pipelines.evaluating.mouths import choose_mouth
from pipelines.evaluating.pointer_pictures import pointer_pictures
from pipelines.evaluating.pointers import aligned_pointer_rows, pointer_rows, words_per_chunk
from pipelines.evaluating.room import room_wanted
from pipelines.evaluating.scoring import Means, score
from pipelines.evaluating.sentences import asked_anew
from pipelines.evaluating.showing import SHOWN, show_clips
from pipelines.evaluating.streams import long_prompt, speak, together
from pipelines.evaluating.syncnets import our_syncnet, syncnet_or_note
from pipelines.free_memory import check_memory
from pipelines.run_directory import RunDirectory
from pipelines.stages.stream import plan_of
from streamchar.evaluation.pointer_track import PointerTrack, pointer_on_sound
from streamchar.evaluation.report import TITLES, ClipRow, Report
from streamchar.rollout.character import Character
from streamchar.rollout.plan import SamplePlan, teacher_plan
from streamchar.streaming.engine import accelerate
from streamchar.streaming.inference_plan import InferencePlan
from streamchar.streaming.muxer import write_clip
from streamchar.streaming.timing import TimingRecord
from streamchar.transcript import normalise_words

log = logging.getLogger(__name__)

TOGETHER = 16
"""Streams that are generated at once."""


@dataclass
class Speaker:
    """A model under evaluation: its column in the report and how it samples."""

    column: str
    character: Character
    plan: SamplePlan


def short_protocol(cfg: RunConfig, directory: RunDirectory, bar: Progress) -> Report:
    """The report on a run's model.

    Raises:
        InputError: where the model, the latents or a measuring file that was asked for is missing.
    """
    options = cfg.evaluate
    speakers = speakers_of(cfg, directory)
    main, character = speakers[0], speakers[0].character
    clock, (video, audio) = character.clock, character.codecs()
    prints: dict[str, str | None] = {"video": video.fingerprint, "audio": audio.fingerprint}
    val = LatentStore(directory.input("encode", "latents/val"), clock, prints)
    train = LatentStore(directory.input("encode", "latents/train"), clock, prints)
    texts = [c.record.text for c in train.clips if c.record.recorded]
    first = next((c for c in train.clips if c.has_video), None)
    devices = open_devices(options.parts, first is None or "mouth" not in first.record.meta)
    chosen = EvaluationSet(val, clock, character.window, character.units, options.clips, options.seed)
    check_memory(room_wanted(chosen, options, len(speakers), clock, cfg.data.size, TOGETHER),
                 f"pictures of {len(chosen)} clips in every column", "choose fewer evaluate.clips"
                 + " or evaluate.teacher=false" * (len(speakers) > 1) + " or evaluate.cheats=false" * options.cheats)
    subjects = [held_out(chosen, i, clock, video, audio, cfg.data.size)
                for i in bar.track(range(len(chosen)), description="held-out clips")]
    clips = list(subjects)
    mouth = choose_mouth(options, train, clips, video)  # before hours of streaming: it may be asked for in vain
    subjects += asked_anew(clips, options.new_sentences, [c.record.text for c in train.clips], options.seed)
    subjects = with_seeds(subjects, options.seeds)
    report = Report(f"Evaluation of run {directory.name}", {
        "model": TITLES[main.column], "from stage": options.from_stage, "steps": main.plan.steps, "clips": len(clips),
        "new sentences": sum(s.new for s in subjects) // options.seeds, "seeds": options.seeds, "seed": options.seed,
        "precision": options.precision,
        "guidance": f"{character.diffusion.guidance_video:g} / {character.diffusion.guidance_audio:g} away from "
                    f"{character.diffusion.guidance_null}"
                    + (f", the student's condition by {main.plan.guidance_condition:g}" if character.few_step else ""),
        "frames per chunk": clock.chunk_frames, "fps": clock.fps})
    for speaker in speakers:
        generate(speaker, subjects, options.seconds, options.seed, bar)
    long = _long_stream(cfg, main, clips, train, bar)
    forced, free = _pointer_tracks(cfg, character, val, bar)
    if options.cheats:
        add_cheats(clips, options.seed)
    show_clips(directory, subjects, report, clock, bar)
    syncnet = syncnet_or_note(report, lambda: our_syncnet(
        directory.stage("evaluate") / "syncnet", train, clock, cfg.data.size, options.syncnet_clips, options.seed, bar)
    ) if options.syncnet_clips else None
    means = Means(devices, mouth, texts, other_looks(train, {s.look for s in clips}, video), syncnet)
    score(report, subjects, means, options, clock, main.column, bar)
    rate = words_per_chunk(train, clock)
    pointer_rows(report, forced, free, rate, main.column)
    if options.words:
        aligned_pointer_rows(report, subjects, rate, clock, main.column)
    pointer_pictures(report, directory, character, clips, main.column, options.words)
    if long is not None:
        _add_long(report, directory, long, clips, main, options.drift_window_s)
    latent_rows(report, clips, clock)
    if options.from_stage == "orchestrator":
        report.notes.append("The orchestrator alone, by its own head: read words, pointer and voice. Its pictures are "
                            "noise.")
    cut = [s for s in subjects if (r := s.renderings[main.column]).pointers
           and r.pointers[-1] < len(normalise_words(s.text)) - 0.01]
    if cut:
        report.notes.append(f"{len(cut)} of {len(subjects)} streams ended at evaluate.seconds={options.seconds:g} "
                            "before their text did: its last words count as errors.")
    report.notes.append(f"{len(clips)} clips: differences within a few points of word error or a few hundredths of "
                        "correlation are noise; intervals are 95 % of a bootstrap over clips (Frechet distances: of "
                        "the jackknife over clips; drift: of a bootstrap over the stream's windows).")
    return report


def speakers_of(cfg: RunConfig, directory: RunDirectory) -> list[Speaker]:
    """The model asked for (of ``from=orchestrator`` its own head); beside it, if wanted, the undistilled teacher at its
    own steps and at the student's."""
    if cfg.evaluate.from_stage == "orchestrator":
        speech = load_speech(directory, cfg)
        return [Speaker("own_head", speech, plan_of(speech, cfg.evaluate.steps))]
    character = in_precision(load_character(directory, cfg, cfg.evaluate.from_stage), cfg.evaluate.precision)
    out = [Speaker("student" if character.few_step else "teacher", character, plan_of(character, cfg.evaluate.steps))]
    export = alone(cfg, directory, cfg.evaluate.from_stage)
    if export is not None and export.few_step and cfg.evaluate.teacher:
        log.warning("evaluate.teacher=true: init=%s is distilled and has no teacher to stand beside it", cfg.init)
    elif cfg.evaluate.teacher and character.few_step:
        teacher = in_precision(load_character(directory, cfg, cfg.evaluate.from_stage, "teacher"),
                               cfg.evaluate.precision)
        out += [Speaker("teacher", teacher, teacher_plan(teacher.diffusion, cfg.evaluate.teacher_steps)),
                Speaker("teacher_euler", teacher, teacher_plan(teacher.diffusion, out[0].plan.steps))]
    return out


def in_precision(character: Character, precision: str) -> Character:
    """The character as a streaming engine rounds it, without the graphs and compiled code that make it fast."""
    return accelerate(character, InferencePlan(bf16=precision != "plain", fp8=precision == "fp8"))


def with_seeds(subjects: list[Subject], seeds: int) -> list[Subject]:
    """The subjects, and copies of them to be streamed with further seeds; only the first has recorded renderings."""
    return subjects + [replace(s, key=f"{s.key}{SEED_MARK}{n}", renderings={}, latents={}, truth=None,
                               opening=None, seed=n)
                       for n in range(1, seeds) for s in subjects]


def generate(speaker: Speaker, subjects: list[Subject], seconds: float, seed: int, bar: Progress) -> None:
    """The speaker streams every subject's text, several at once.

    Of subjects of which only the words are scored, pictures are kept where they are shown.
    """
    shown = {s.key for s in subjects[:SHOWN]}
    task = bar.add_task(f"streaming, {speaker.column}", total=len(subjects))
    for number in sorted({s.seed for s in subjects}):
        mine = [s for s in subjects if s.seed == number]
        for first in range(0, len(mine), TOGETHER):
            some = mine[first:first + TOGETHER]
            takes, _, latents = speak(speaker.character, together(some), speaker.plan, seconds,
                                      seed + 1000 * number + first)
            for subject, take, chunks in zip(some, takes, latents, strict=True):
                if subject.scored:
                    subject.latents[speaker.column] = chunks
                seen = subject.scored or subject.key in shown
                subject.renderings[speaker.column] = take if seen else take.unseen()
            bar.advance(task, len(some))


def _long_stream(cfg: RunConfig, main: Speaker, clips: list[Subject], train: LatentStore, bar: Progress
                 ) -> tuple[Rendering, TimingRecord] | None:
    """One stream of ``drift_s`` seconds, alone on the machine: drift and speed."""
    seconds = cfg.evaluate.drift_s
    if not seconds:
        return None
    clock = main.character.clock
    pace = words_per_chunk(train, clock) / float(clock.chunk_seconds)
    task = bar.add_task("long stream", total=int(seconds / float(clock.chunk_seconds)) + 1)
    prompt = long_prompt(clips[0], [s.text for s in clips], seconds, pace)
    takes, record, _ = speak(main.character, prompt, main.plan, seconds, cfg.evaluate.seed, lambda: bar.advance(task))
    return takes[0], record


def _pointer_tracks(cfg: RunConfig, character: Character, val: LatentStore, bar: Progress
                    ) -> tuple[list[PointerTrack], list[PointerTrack]]:
    """The pointer over real held-out sound until ``pointer_items`` chunks are seen: (forced, free), a track a clip."""
    wide = EvaluationSet(val, character.clock, character.window, character.units, len(val.clips), cfg.evaluate.seed)
    tracks, seen = (list[PointerTrack](), list[PointerTrack]()), 0
    task = bar.add_task("pointer on real sound", total=cfg.evaluate.pointer_items)
    for i in range(len(wide)):
        truth, batch = wide.truth(i), wide.batch(i, 1).to(next(character.orchestrator.parameters()).device)
        for track, forced in zip(tracks, (True, False), strict=True):
            track.append(pointer_on_sound(character, batch, truth.video, truth.audio, truth.words, forced))
        seen += len(tracks[0][-1].true)
        bar.update(task, completed=seen)
        if seen >= cfg.evaluate.pointer_items:
            break
    return tracks


def _add_long(report: Report, directory: RunDirectory, long: tuple[Rendering, TimingRecord], clips: list[Subject],
              main: Speaker, window_s: float) -> None:
    """Drift and speed of the long stream; a recorded clip's drift beside it."""
    rendering, record = long
    clock = main.character.clock
    longest = max((c.renderings.get("real") or c.renderings["codec"] for c in clips), key=lambda r: len(r.frames))
    drift_rows(report, {"real": longest, main.column: rendering}, clock, window_s)
    speed = record.summary()
    report.add("speed", "real-time factor", {main.column: speed["real_time_factor"]},
               note=f"first chunk {speed['first_chunk_s']:.2f} s, p95 {speed['chunk_p95_s']:.2f} s of "
                    f"{speed['chunk_budget_s']:.2f} s, {speed['deadline_misses']:.0f} deadlines missed; 1 keeps up")
    record.save(directory.stage("evaluate") / "timing.json")
    folder = directory.stage("evaluate") / "videos"
    write_clip(folder / f"long-{main.column}.mp4", rendering.frames, rendering.sound, clock.fps, clock.sample_rate)
    row = ClipRow("long stream", f"{len(rendering.frames) / clock.fps:.1f} s, all clips' texts one after another")
    row.videos[main.column] = f"videos/long-{main.column}.mp4"
    report.clips.append(row)
