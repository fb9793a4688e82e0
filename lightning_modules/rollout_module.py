"""Stage II: distribution matching on the student's own chunks, through the one chunk loop (design, section 8)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.config import RolloutStage
from lightning_modules.matching_module import MatchingModule
from lightning_modules.micro_batches import micro_rows
from streamchar.diffusion.noise import scalar
from streamchar.distributed.out_of_memory import at_work
from streamchar.rollout.chunk_loop import ChunkResult, generate_chunk
from streamchar.rollout.memory import StreamMemory
from streamchar.types import RolloutBatch, tensor_map

log = logging.getLogger(__name__)


class RolloutModule(MatchingModule):
    """Rolls the student K chunks on, gives one of them (or each) gradient, and trains the critic on a drawn one.

    Memory is detached between chunks and, after the warm-up, persists across iterations; it is part of the checkpoint.
    In the student's start (``trajectory.steps``) the chunk with gradient learns where the teacher's ODE leads after the
    student's own history, from its own chunk, noised again, or from its own steps [ours].
    """

    options: RolloutStage
    memory: StreamMemory | None = None
    streams: RolloutBatch | None = None

    # The plan of an iteration, the same on all ranks

    def chunks(self) -> int:
        """K ~ U{min .. Kmax}, Kmax growing linearly over the stage."""
        o = self.options
        grown = o.first_max_chunks + (o.max_chunks - o.first_max_chunks) * self.iteration / max(o.steps, 1)
        return o.min_chunks + int(scalar(self.seed, self.iteration, "chunks") * (int(grown) - o.min_chunks + 1))

    def drawn_chunk(self, role: str, count: int) -> int:
        """The chunk of this rollout on which ``role`` learns, uniform over 0 .. K-1."""
        return int(scalar(self.seed, self.iteration, "chunk-" + role) * count)

    # One iteration

    def training_step(self, batch: RolloutBatch, batch_index: int) -> None:
        memory, starting = self._memory(batch), self.begins_iteration()
        count, exit_step = self.chunks(), self.exit_step()
        assert self.streams is not None
        rows = micro_rows(len(batch), self.stage.accumulate)
        parts, sets = [memory.rows(at) for at in rows], [self.streams.groups[at] for at in rows]
        student = critic = torch.zeros((), device=self.device)
        values: dict[str, Any] = {"train/chunks": float(count), "train/exit_step": float(exit_step)}
        for part, of in zip(parts, sets, strict=True):
            learnt, watched, figures = self._roll(part, count, exit_step, len(part.transcripts) / len(batch), of)
            student, critic, values = student + learnt, critic + watched, values | figures
        memory = StreamMemory.together(parts)
        values |= {"pointer/stalled_streams": float((memory.stalled >= self._stall()).sum()),
                   "train/stream_chunk": float(memory.chunk)}
        self.memory = memory if self.options.persistent and self.iteration >= self.options.warmup_iterations else None
        if starting:
            self.finish_trajectory(student, values, batch.keys)
        else:
            self.finish(student if self.generator_turn else None, critic, values, batch.keys)

    def _roll(self, memory: StreamMemory, count: int, exit_step: int, share: float, sets: Sequence[str]
              ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Roll some of the streams ``count`` chunks on, with all backward passes.

        ``share``: theirs of the iteration's streams; ``sets``: of a mixture, that in which each began. Returns the
        losses of student and critic, times ``share``, and figures.
        """
        turn = self.starting or self.generator_turn
        values: dict[str, Any] = {}
        learns = range(count) if self.options.every_chunk else (self.drawn_chunk("generator", count),)
        watched = self.drawn_chunk("critic", count)
        student = critic = torch.zeros((), device=self.device)
        for i in range(count):
            result = self._chunk(memory, exit_step, grad=turn and not self.starting and i in learns)
            weight = self.owned_weight(result.latents.audio, result.chunk)
            if turn and i in learns:
                part = share / len(learns)
                loss, figures = self._student_backward(result, weight, memory.index, i, exit_step, part, sets)
                student, values = student + loss * part, values | figures
            if i == watched and not self.starting:
                key = self.key(memory.index, "critic").at(chunk=i)
                loss, figures = self.critic_backward(result.exit, result.prefix, result.conditions, weight, key, share,
                                                     sets)
                critic, values = critic + loss * share, values | figures
        return student, critic, values

    def _student_backward(self, result: ChunkResult, weight: Tensor, index: Tensor, chunk: int, exit_step: int,
                          share: float, sets: Sequence[str]) -> tuple[Tensor, dict[str, Any]]:
        """The student learns on one chunk of the rollout: where the teacher ends, or by matching."""
        if self.starting:
            key = self.key(index, "trajectory").at(chunk=chunk)
            return self.trajectory_backward(result.conditions, result.prefix, result.untold, result.latents, weight,
                                            key, exit_step, share, sets)
        key = self.key(index, "generator").at(chunk=chunk)
        return self.generator_backward(result.exit, result.prefix, result.untold, result.conditions, weight, key, share)

    def _stall(self) -> int:
        return self.orchestrator.config.stall_chunks

    def _chunk(self, memory: StreamMemory, exit_step: int, grad: bool) -> ChunkResult:
        with at_work("the student's rollout" + (" (the chunk with gradient)" if grad else "")):
            return generate_chunk(self.character, memory, self.plan, exit_step, exit_grad=grad,
                                  exit_feeds_memory=self.options.exit_sample_feeds_memory,
                                  iteration=self.iteration, role="rollout")

    # Persistent streams

    def _memory(self, batch: RolloutBatch) -> StreamMemory:
        """The streams' memory: kept, given more text where it runs out, or begun afresh."""
        memory = self.memory
        if memory is None or memory.chunk >= self.options.reset_chunks or len(memory.transcripts) != len(batch):
            self.streams = batch
            return self.character.start(batch, self.seed)
        for b, words in enumerate(batch.words):
            left = float(memory.lengths[b] - memory.pointer[b])
            # A stream whose text has ended keeps quiet for a chunk before it goes on: ends are part of training.
            if bool(memory.quiet[b] > 0) or 0 < left < self.character.window.max_todo:
                memory.append_text(b, words)
        return memory

    def extra_state(self) -> dict[str, Any]:
        if self.memory is None or self.streams is None:
            return {}
        streams = dict(vars(tensor_map(self.streams, lambda t: t.clone())))
        return {"memory": self.memory.state_dict(), "streams": streams, "world": self.trainer.world_size}

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.memory is not None and self.streams is not None and self.memory.ref.device != self.device:
            self._restore(self.memory.state_dict())  # it was restored before the models came to their device

    def _restore(self, state: dict[str, Any]) -> None:
        assert self.streams is not None
        self.streams = self.streams.to(self.device)
        self.memory = self.character.start(self.streams, self.seed)
        self.memory.load_state_dict(state)

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.memory = self.streams = None
        if not state:
            return
        if state["world"] != self.trainer.world_size:
            log.warning("streams begin afresh: their memory was saved by %d processes, now there are %d",
                        state["world"], self.trainer.world_size)
            return
        self.streams = RolloutBatch(**state["streams"])
        self._restore(state["memory"])
