"""How models are run that only speak: precision, compiled blocks, CUDA graphs, FP8. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from streamchar.errors import InputError


@dataclass(frozen=True)
class InferencePlan:
    """What :func:`streamchar.streaming.engine.accelerate` does to a character.

    bf16: linear layers hold bfloat16 weights and compute in it, as autocast would with float32 ones.
    graphs: static buffers, and on CUDA one graph for each of context, denoising step, prefix, condition block, pointer.
    compile: the denoiser's blocks are compiled, which fuses modulation, norms and rotary embedding, the orchestrator's
        layers in few kernels, and a decoder of pictures that has no convolutions in time.
    fp8: the video path of all blocks but the first and the last in 8 bits; implies bf16.
    attention: a kernel of ``streamchar.nn.attention``; ``auto``: on CUDA the fastest at the stream's own sizes.
    codecs: with ``graphs``, codecs too run from static buffers; on CUDA those that are networks decode in the precision
        of the plan. Decoding serves one thread at a time then.
    """

    bf16: bool = False
    graphs: bool = False
    compile: bool = False
    fp8: bool = False
    attention: str = "auto"
    codecs: bool = True


NAMED = {
    "plain": InferencePlan(),
    "bf16": InferencePlan(bf16=True),
    "graphs": InferencePlan(bf16=True, graphs=True),
    "compiled": InferencePlan(bf16=True, graphs=True, compile=True),
    "fp8": InferencePlan(bf16=True, graphs=True, compile=True, fp8=True),
}


def named_plan(name: str, device_type: str) -> InferencePlan:
    """One of :data:`NAMED`, or ``auto``: graphs on CUDA, plain elsewhere.

    Raises:
        InputError: for another name.
    """
    if name == "auto":
        return NAMED["graphs" if device_type == "cuda" else "plain"]
    if name not in NAMED:
        raise InputError(f"stream.engine={name} is none of auto, {', '.join(NAMED)}")
    return NAMED[name]
