"""The engine on a GPU: graphs, compiled blocks, FP8 tensor cores and attention kernels against the plain paths."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from streamchar.codecs.mel import MelCodec
from streamchar.codecs.taef2 import Taef2Codec
from streamchar.nn import attention
from streamchar.nn.fp8_linear import Fp8Linear
from streamchar.rollout.character import Character
from streamchar.rollout.plan import student_plan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.engine import accelerate, hold_bf16
from streamchar.streaming.inference_plan import NAMED, InferencePlan
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import MemorySink
from tests import tiny_models as tiny
from tests.integration.test_stream_stage import PlainSound, PlainVideo

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees")
WORDS = [["red", "at", "c"], ["nine"]]
needs_fp8 = pytest.mark.skipif(torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9),
                               reason="needs FP8 tensor cores (compute capability 8.9)")


@pytest.fixture(autouse=True)
def same_attention() -> Iterator[None]:
    yield
    attention.use("cuda", None)


def character() -> Character:
    """Tiny, with sides that FP8 takes and heads that every attention kernel takes."""
    plain = tiny.character()
    torch.manual_seed(0)
    config = replace(plain.denoiser.config, layers=4, width=128, heads=2, ffn=256, audio_ffn=256)
    denoiser = type(plain.denoiser)(config, plain.clock, plain.window)
    orchestrator = type(plain.orchestrator)(plain.orchestrator.config, plain.clock, tiny.AUDIO, config.width)
    for model in (denoiser, orchestrator):
        for p in model.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.1)
    return replace(plain, denoiser=denoiser, orchestrator=orchestrator).to("cuda")


def stream(who: Character, autocast: bool = False) -> torch.Tensor:
    plan = student_plan(who.diffusion)
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        made = list(stream_chunks(who, tiny.streams(WORDS).to("cuda"), plan, 4, exactly=True))
    return torch.stack([c.latents.video for c in made])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt())


def test_graphs_replay_the_plain_stream() -> None:
    who = character()
    assert distance(stream(accelerate(deepcopy(who), InferencePlan(graphs=True))), stream(who)) < 1e-5


@pytest.mark.parametrize("name", ["graphs", "compiled", pytest.param("fp8", marks=needs_fp8)])
def test_fast_paths_stay_near_autocast(name: str) -> None:
    who = character()
    plain = stream(who, autocast=True)
    fast = stream(accelerate(deepcopy(who), NAMED[name]))
    assert torch.isfinite(fast).all() and distance(fast, plain) < (0.1 if name == "fp8" else 0.03)


@needs_fp8
def test_tensor_cores_give_what_the_cpu_computes_from_the_same_eight_bits() -> None:
    torch.manual_seed(0)
    layer, x = Fp8Linear(torch.nn.Linear(256, 128)), torch.randn(3, 35, 256)
    ours = layer.cuda()(x.cuda()).float().cpu()
    assert distance(ours, layer.cpu()(x).float()) < 0.01


@pytest.mark.parametrize("queries, keys", [(64, 64), (2339, 7203)])
def test_every_attention_kernel_gives_the_same(queries: int, keys: int) -> None:
    g = torch.Generator("cuda").manual_seed(0)
    q, k, v = (torch.randn(1, n, 24, 128, generator=g, device="cuda", dtype=torch.bfloat16)
               for n in (queries, keys, keys))
    found = {}
    for name in attention.kernels("cuda"):
        attention.use("cuda", name)
        found[name] = attention.attend(q, k, v).float()
    for name, out in found.items():
        assert distance(out, found["sdpa"]) < 0.02, name


def test_chunks_decoded_beside_generation_are_the_same_pictures() -> None:
    who = character()
    plan, found = student_plan(who.diffusion), []
    for overlap in (False, True):
        sinks = [MemorySink(25, 16000) for _ in WORDS]
        session = StreamSession(who.clock, PlainVideo(), PlainSound(), sinks, overlap=overlap)
        session.run(stream_chunks(who, tiny.streams(WORDS).to("cuda"), plan, 4, exactly=True))
        found.append([s.frames for s in sinks])
    assert all((a == b).all() for a, b in zip(*found, strict=True))


def sound_of(codec: MelCodec, latents: torch.Tensor) -> torch.Tensor:
    decoder = codec.decoder()
    return torch.cat([decoder.push(latents[:9]), decoder.push(latents[9:]), decoder.flush()])


def test_the_vocoder_runs_where_its_codec_is() -> None:
    """Phases are found by iteration, which enlarges rounding: as near to the spectrum asked for is all that holds."""
    torch.manual_seed(0)
    waves = [0.1 * torch.randn(16000).cumsum(0).sin() for _ in range(4)]
    codec = MelCodec(64).fit(waves)
    latents = codec.encode(waves[0][None])[0]
    cpu = sound_of(codec, latents)
    codec.cuda()
    eager = sound_of(codec, latents.cuda())
    codec.make_static()
    graph = sound_of(codec, latents.cuda())
    assert eager.is_cuda and graph.is_cuda and len(graph) == len(cpu)
    assert distance(graph, eager) < 1e-3
    wanted = codec.log_mel(latents.cuda()[None])[0, 2:-2]
    near, far = (distance(codec.log_mel(codec.encode(s.cuda()[None]))[0, 2:-2], wanted) for s in (graph, cpu))
    assert near < 1.1 * far


@pytest.mark.parametrize("name", ["graphs", "compiled"])
def test_pictures_decoded_from_a_graph_are_those_of_the_codec(name: str) -> None:
    torch.manual_seed(0)
    who = replace(character(), video_codec=Taef2Codec(tiny.CHANNELS).eval().cuda(), audio_codec=MelCodec(tiny.AUDIO))
    z = torch.randn(1, tiny.CHANNELS, 5, tiny.GRID, tiny.GRID, device="cuda")
    plain = who.codecs()[0].decode(z)
    fast = accelerate(who, NAMED[name]).codecs()[0]
    for _ in range(2):
        assert (fast.decode(z) - plain).abs().mean() < 0.02


def test_the_compiled_language_model_is_near_the_plain_one() -> None:
    who = character()
    c, audio = tiny.conditions(), tiny.latents().audio.cuda()
    c = c.to("cuda")
    found = []
    for fast in (False, True):
        model = deepcopy(who.orchestrator).requires_grad_(False)
        hold_bf16(model)
        assert not fast or model.use_fast_llm()
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            found.append(model.block(model.prefix(c), audio, torch.full((2,), 0.7, device="cuda")).float())
    assert distance(*found) < 0.03
