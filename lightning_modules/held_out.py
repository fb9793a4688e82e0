"""Held-out scores of a student beside the undistilled teacher at the same number of steps (design, section 8).

L_G is normalised by construction and does not fall in a healthy run, so distillation is judged by what it makes: the
Frechet distance in latents, how the mouth keeps time with the sound, and two distances to the teacher's own samples.
For the distance to the one sample from the same noise, few-step samplers re-noise with the chunk's first noise: with
fresh noise even a student that draws exactly as the teacher does would be as far from it as another draw of the
teacher, and a blurred mean nearer. The energy distance compares the draws as they are streamed, two of each condition.
The spread tells blur (below 1) from over-saturation (above 1): deviation of latents from their channel's mean, as a
share of the reference's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.noise import NoiseKey
from streamchar.evaluation.energy import energy_distance
from streamchar.evaluation.frechet import frechet_distance
from streamchar.evaluation.mouth import MouthDetector
from streamchar.evaluation.sync import mean_score, sync_score
from streamchar.objectives.per_sample import video_mean
from streamchar.rollout.character import Character
from streamchar.rollout.denoise import denoise_chunk
from streamchar.rollout.plan import SamplePlan, student_plan, teacher_plan
from streamchar.rollout.stream import stream_chunks
from streamchar.types import ChunkBatch, Latents, RolloutBatch

STREAM_CHUNKS = 3
MAX_LAG = 8
REFERENCE = "teacher_full"


@dataclass
class Draws:
    """Samples of the same conditions: two as they are streamed, and one that is a function of the first's noise."""

    first: Latents
    second: Latents
    same: Latents


class HeldOutScores:
    """Collects samples over the validation batches and turns them into scores.

    Systems: ``student``; ``teacher_few`` the undistilled teacher with the student's sampler and number of steps;
    ``teacher_euler`` the teacher's own Euler sampler with guidance at that number of steps, at two evaluations per
    step; ``teacher_full`` the teacher at all its steps, which is the reference: its scores are those of one draw
    against another, so that its Frechet distances are the floor, and its distances say how far samples from other
    noise lie apart. Accepts single chunks (same conditions) and streams (each on its own history).

    Args:
        mouth: measures mouth openings in decoded pictures; without it lip sync is not scored.
    """

    def __init__(self, character: Character, teacher: Denoiser, seed: int, mouth: MouthDetector | None = None) -> None:
        self.mouth = mouth
        few, full = student_plan(character.diffusion), teacher_plan(character.diffusion)
        euler = teacher_plan(character.diffusion, few.steps)
        self.teacher, self.seed = teacher, seed
        self.character = character
        self.systems: dict[str, tuple[bool, SamplePlan]] = {
            "student": (True, few), "teacher_few": (False, few), "teacher_euler": (False, euler),
            REFERENCE: (False, full)}
        self.full = full
        self.cache: dict[tuple[str, int], list[Draws]] = {}
        self.samples: dict[str, list[Draws]] = defaultdict(list)

    def add(self, batch: ChunkBatch | RolloutBatch, number: int) -> None:
        """Sample every system on one validation batch; what never changes is sampled once."""
        batch_samples: dict[str, list[Draws]] = {}
        for name, (is_student, plan) in self.systems.items():
            found = None if is_student else self.cache.get((name, number))
            if found is None:
                first, second = (self._sample(batch, is_student, plan, self.seed + draw) for draw in range(2))
                same = self._sample(batch, is_student, replace(plan, fresh_noise=False), self.seed) \
                    if plan.renoise else first
                found = [Draws(*draws) for draws in zip(first, second, same, strict=False)]
                if not is_student:
                    self.cache[name, number] = found
            batch_samples[name] = found
        for name, made in batch_samples.items():
            self.samples[name] += made

    @torch.no_grad()
    def _sample(self, batch: ChunkBatch | RolloutBatch, is_student: bool, plan: SamplePlan, seed: int) -> list[Latents]:
        """The chunk of every item, or several of every stream."""
        character = self.character if is_student else replace(self.character, denoiser=self.teacher)
        if isinstance(batch, RolloutBatch):
            return [self._owned(r.latents) for r in stream_chunks(character, batch, plan, STREAM_CHUNKS, seed, True)]
        prefix = character.orchestrator.prefix(batch.conditions)
        key = NoiseKey.of(seed, batch.index, "val")
        return [self._owned(denoise_chunk(character.denoiser, character.orchestrator, batch.conditions, prefix, plan,
                                          key).final)]

    def _owned(self, x: Latents) -> Latents:
        """On the CPU, without the sound latent that at some rates is surplus in some chunks."""
        return Latents(x.video.float().cpu(), x.audio.float().cpu()[:, :int(self.character.clock.audio_per_chunk)])

    def scores(self) -> dict[str, float]:
        """``eval/SYSTEM_MEASURE`` of all systems; lower is better, but for the spread. Clears what was collected."""
        out: dict[str, float] = {}
        reference = self.samples[REFERENCE]
        for name, made in self.samples.items():
            found = _distances(made, reference, other_noise=name == REFERENCE) | self._sync(made)
            if name != REFERENCE:
                found |= _energy(made, reference)
            out |= {f"eval/{name}_{measure}": value for measure, value in found.items()}
        self.samples.clear()
        return out

    def _sync(self, samples: list[Draws]) -> dict[str, float]:
        """Frames of lag between mouth and sound, and what their correlation at lag 0 lacks of 1, over all chunks.

        The correlation curves of single chunks are averaged first: one chunk alone is too short for a lag.
        """
        codecs = self.character.video_codec, self.character.audio_codec
        if self.mouth is None or codecs[0] is None or codecs[1] is None:
            return {}
        clock, curves = self.character.clock, []
        for s in (sample for draws in samples for sample in (draws.first, draws.second)):
            for video, audio in zip(s.video, s.audio, strict=True):
                pictures = codecs[0].decode(video[None])[0].permute(0, 2, 3, 1).clamp(0, 1)
                opening = self.mouth.opening((pictures * 255).round().to(torch.uint8).cpu().numpy())
                sound = codecs[1].decode(audio).float().cpu().numpy()
                curves.append(sync_score(opening, sound, clock.fps, clock.sample_rate,
                                         min(MAX_LAG, clock.chunk_frames // 4)))
        score = mean_score(curves)
        return {"lag_frames": abs(score.lag), "desync": 1 - score.zero}


def _mean(values: list[Tensor]) -> float:
    return float(torch.cat(values).mean())


def _distances(made: list[Draws], reference: list[Draws], other_noise: bool) -> dict[str, float]:
    """Mean squared distance from the same noise (``other_noise``: from other noise), Frechet distances and spread.

    The latter two always compare draws of other noise, so that all systems are measured alike.
    """
    pairs = [(a.second if other_noise else a.same, b.first) for a, b in zip(made, reference, strict=True)]
    seconds, firsts = [a.second for a in made], [b.first for b in reference]
    return {
        "distance_video": _mean([video_mean((a.video - b.video).square()) for a, b in pairs]),
        "distance_audio": _mean([video_mean((a.audio - b.audio).square()) for a, b in pairs]),
        "frechet_video": frechet_distance(_video_rows(seconds), _video_rows(firsts)),
        "frechet_audio": frechet_distance(_audio_rows(seconds), _audio_rows(firsts)),
        "spread_video": _deviation(_video_rows(seconds)) / _deviation(_video_rows(firsts)),
        "spread_audio": _deviation(_audio_rows(seconds)) / _deviation(_audio_rows(firsts))}


def _energy(made: list[Draws], reference: list[Draws]) -> dict[str, float]:
    both = list(zip(made, reference, strict=True))
    return {"energy_video": _mean([energy_distance(torch.stack((a.first.video, a.second.video)),
                                                   torch.stack((b.first.video, b.second.video))) for a, b in both]),
            "energy_audio": _mean([energy_distance(torch.stack((a.first.audio, a.second.audio)),
                                                   torch.stack((b.first.audio, b.second.audio))) for a, b in both])}


def _video_rows(samples: list[Latents]) -> Tensor:
    """Latent pixels as (N, C) features."""
    return torch.cat([s.video.permute(0, 2, 3, 4, 1).flatten(0, 3) for s in samples])


def _deviation(rows: Tensor) -> float:
    """Root mean square of (N, C) features around their channel's mean; not 0, so that it can be divided by."""
    return max(float((rows - rows.mean(dim=0)).square().mean().sqrt()), 1e-12)


def _audio_rows(samples: list[Latents]) -> Tensor:
    """Audio latents as (N, C) features."""
    return torch.cat([s.audio.flatten(0, 1) for s in samples])
