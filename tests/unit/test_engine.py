"""Every fast path against the plain one, as far as a CPU can show it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.evaluating.short import in_precision
from streamchar.codecs.mel import MelCodec
from streamchar.codecs.taef2 import Taef2Codec
from streamchar.denoiser.model import Denoiser
from streamchar.errors import InputError
from streamchar.evaluation.config import EvaluateConfig
from streamchar.nn import attention
from streamchar.nn.fp8_linear import BOUND, Fp8Linear
from streamchar.nn.static_call import StaticCall
from streamchar.orchestrator.model import Orchestrator
from streamchar.rollout.character import Character
from streamchar.rollout.plan import SamplePlan, student_plan, teacher_plan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.engine import FastDenoiser, FastOrchestrator, accelerate, hold_bf16, warm_up
from streamchar.streaming.fast_video import FastVideo, lay_out
from streamchar.streaming.inference_plan import InferencePlan, named_plan
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import MemorySink
from streamchar.types import Latents, tensor_map
from tests import tiny_models as tiny

WORDS = [["red", "at", "c"], ["nine"]]
BLOCKS = 4
FEW = student_plan(tiny.character().diffusion)
HEARD = replace(FEW, guidance_condition=3.0)
GUIDED = replace(teacher_plan(replace(tiny.character().diffusion, guidance_null="text"), 3), text_null=True)


@pytest.fixture(autouse=True)
def same_attention() -> Iterator[None]:
    """Chosen anew after each test."""
    yield
    attention.use("cpu", None)


def character() -> Character:
    """Tiny, with blocks between the first and the last."""
    plain = tiny.character()
    torch.manual_seed(0)
    model = type(plain.denoiser)(replace(plain.denoiser.config, layers=BLOCKS), plain.clock, plain.window)
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return replace(plain, denoiser=model)


def stream(who: Character, plan: SamplePlan, autocast: bool = False, chunks: int = 3) -> list[Latents]:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return [c.latents for c in stream_chunks(who, tiny.streams(WORDS), plan, chunks, exactly=True)]


def distance(a: list[Latents], b: list[Latents]) -> float:
    """Root-mean-square difference of the pictures' latents, relative to ``b``."""
    x, y = (torch.stack([c.video for c in s]) for s in (a, b))
    return float((x - y).square().mean().sqrt() / y.square().mean().sqrt())


@pytest.mark.parametrize("plan", [FEW, HEARD, GUIDED], ids=["few steps", "guided condition", "guided by text"])
def test_static_buffers_give_the_plain_stream_bit_by_bit(plan: SamplePlan) -> None:
    who = character()
    fast = accelerate(replace(who, denoiser=deepcopy(who.denoiser)), InferencePlan(graphs=True))
    for ours, theirs in zip(stream(fast, plan), stream(who, plan), strict=True):
        assert torch.equal(ours.video, theirs.video) and torch.equal(ours.audio, theirs.audio)
    assert isinstance(fast.denoiser, FastDenoiser) and isinstance(fast.orchestrator, FastOrchestrator)
    assert fast.denoiser._context.recorded == fast.denoiser._step.recorded == 1  # type: ignore[attr-defined]


def test_streams_may_go_on_in_and_out_of_inference_mode_and_change_their_number() -> None:
    who = character()
    fast = accelerate(deepcopy(who), InferencePlan(graphs=True))
    for count in (2, 1, 2):
        batch = tiny.streams(WORDS[:count])
        with torch.inference_mode(count == 1):
            ours = [c.latents.video for c in stream_chunks(fast, batch, FEW, 2, exactly=True)]
        theirs = [c.latents.video for c in stream_chunks(who, batch, FEW, 2, exactly=True)]
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_bf16_weights_are_what_autocast_makes_of_float32_ones() -> None:
    who = character()
    fast = accelerate(deepcopy(who), named_plan("bf16", "cpu"))
    assert all(torch.equal(a.video, b.video) and torch.equal(a.audio, b.audio)
               for a, b in zip(stream(fast, FEW), stream(who, FEW, autocast=True), strict=True))
    static = accelerate(deepcopy(who), named_plan("graphs", "cpu"))
    assert distance(stream(static, FEW), stream(fast, FEW)) == 0.0
    assert 0 < distance(stream(fast, FEW), stream(who, FEW)) < 0.05
    norms = [p for n, p in fast.denoiser.named_parameters() if "norm" in n or "table" in n]
    assert norms and all(p.dtype == torch.float32 for p in norms)


@pytest.mark.parametrize("size", [(64, 48), (128, 256)])
def test_a_layer_in_eight_bits_stays_within_its_bound(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(*size)
    x = torch.randn(2, 50, size[0]) * torch.logspace(-3, 3, 50)[:, None]  # tokens of very different sizes
    plain.requires_grad_(False)
    exact, ours = plain(x) - plain.bias, Fp8Linear(plain)(x).float() - plain.bias
    error = (ours - exact).square().mean(-1).sqrt() / exact.square().mean(-1).sqrt()
    seen = error[:, 20:]  # small tokens drown in the bias, which is rounded to bf16
    assert 0.005 < float(seen.mean()) < BOUND
    assert Fp8Linear(plain).weight.dtype == torch.float8_e4m3fn
    assert torch.isfinite(Fp8Linear(plain)(torch.zeros(3, size[0]))).all()


def test_fp8_changes_inner_video_layers_alone_and_the_stream_a_little() -> None:
    who = character()
    fast = accelerate(deepcopy(who), replace(named_plan("fp8", "cpu"), compile=False))
    inner = fast.denoiser.inner  # type: ignore[attr-defined]
    small = {n for n, m in inner.named_modules() if isinstance(m, Fp8Linear)}
    assert small == {f"blocks.{i}.{n}" for i in range(1, BLOCKS - 1) for n in
                     ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out", "ffn_video.up", "ffn_video.down")}
    half = stream(accelerate(deepcopy(who), named_plan("graphs", "cpu")), FEW)
    assert 0.001 < distance(stream(fast, FEW), half) < 0.02
    assert not any(isinstance(m, Fp8Linear) for m in fast.orchestrator.modules())


def test_an_evaluation_rounds_as_the_engine_of_that_name() -> None:
    who = character()
    assert in_precision(who, "plain") is who
    for name in ("bf16", "fp8"):
        engine = accelerate(deepcopy(who), replace(named_plan(name, "cpu"), compile=False))
        judged = in_precision(deepcopy(who), name)
        for ours, theirs in zip(stream(judged, FEW, chunks=2), stream(engine, FEW, chunks=2), strict=True):
            assert torch.equal(ours.video, theirs.video) and torch.equal(ours.audio, theirs.audio)
    assert "evaluate.precision=int4 must be one of plain, bf16, fp8" in EvaluateConfig(precision="int4").problems()
    assert EvaluateConfig(precision="fp8", from_stage="orchestrator").problems()


def test_a_static_call_copies_what_changed_and_adopts_what_is_lent() -> None:
    lent = StaticCall(lambda x: [x + 1, 2 * x], lend=True)
    use = StaticCall(lambda pair, y: pair[0] + pair[1] + y, adopt=frozenset({0}))
    x, y = torch.ones(3), torch.zeros(3)
    assert use(lent(x), y).tolist() == [4, 4, 4]
    assert use(lent(x * 2), y).tolist() == [7, 7, 7]  # through the same buffers
    kept = use(lent(x), y)
    y += 1  # changed in place: copied again
    assert use(lent(x), y).tolist() == [5, 5, 5] and kept.tolist() == [4, 4, 4]
    other = [torch.full((3,), 10.0), torch.full((3,), 20.0)]
    assert use(other, y).tolist() == [31, 31, 31]  # another one of the same shapes is copied in
    assert use(lent(torch.ones(2)), torch.zeros(2)).tolist() == [4, 4] and use.recorded == 2


class NoWaiting(TorchDispatchMode):
    """Fails where an operation would make the host wait for the device, or copy to it from the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default) and args:
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            same = source.device == out.device or not out.numel()  # nothing is copied for empty tensors
            assert same, f"{func} copies from {source.device} to {out.device}"
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value is read by the host"
        return out


def test_what_graphs_record_never_waits_for_the_host() -> None:
    """On fake CUDA tensors: what these functions do cannot be recorded if they read or copy from the host."""
    for index, fast in ((False, False), (True, False), (False, True)):
        given = tiny.conditions(), tiny.latents()
        who = replace(tiny.character(), orchestrator=tiny.orchestrator(positions="index" if index else "time"))
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            with torch.device("cuda"):
                denoiser = Denoiser(who.denoiser.config, tiny.CLOCK, tiny.WINDOW)
                orchestrator = Orchestrator(who.orchestrator.config, tiny.CLOCK, tiny.AUDIO, 32)
            if fast:
                assert orchestrator.requires_grad_(False).use_fast_llm(compiled=False)
            c, noisy = (tensor_map(x, lambda t: fake.from_tensor(t).cuda()) for x in given)
            sigma = torch.ones(2, device="cuda")
            for watch in (None, NoWaiting()):  # positions are laid out on the device at the first call
                with torch.no_grad(), watch or torch.no_grad():
                    prefix = orchestrator.prefix(c)
                    context = denoiser.encode_context(c)
                    c_a = orchestrator.block(prefix, noisy.audio, sigma)
                    out = denoiser(noisy, sigma, c_a, context, c.audio_time)
                    end = orchestrator.point(prefix, out.audio)
            assert out.video.device.type == end.device.type == "cuda"


def test_plans_have_names_and_wrong_ones_are_told() -> None:
    assert named_plan("auto", "cpu") == InferencePlan() and named_plan("auto", "cuda").graphs
    assert named_plan("fp8", "cuda").fp8
    with pytest.raises(InputError, match="stream.engine=fast is none of auto, plain"):
        named_plan("fast", "cpu")
    with pytest.raises(InputError, match="attention kernel 'flash9' is not there on cpu"):
        accelerate(character(), InferencePlan(bf16=True, attention="flash9"))
    who = character()
    assert accelerate(who, InferencePlan()) is who


def test_warming_up_records_every_plan_and_leaves_the_stream_as_it_was() -> None:
    who = character()
    fast = accelerate(deepcopy(who), InferencePlan(graphs=True))
    memory, batch = fast.start(tiny.streams(WORDS)), tiny.streams(WORDS)
    narrow = replace(FEW, sink_latents=1)
    warm_up(fast, memory, [FEW, FEW.with_steps(2), narrow])
    recorded = fast.denoiser._step.recorded  # type: ignore[attr-defined]
    ours = [c.latents.video for c in stream_chunks(fast, memory, narrow, 2)]
    assert recorded == 2 == fast.denoiser._step.recorded  # type: ignore[attr-defined]
    theirs = [c.latents.video for c in stream_chunks(who, batch, narrow, 2)]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_all_blocks_share_one_compiled_graph_for_the_context_and_one_for_the_step() -> None:
    """More than dynamo's limit of recompiled graphs would leave later blocks uncompiled without a word."""
    graphs = []

    def compiler(graph, inputs):  # type: ignore[no-untyped-def]
        graphs.append(graph)
        return graph.forward

    who, c, noisy = character(), tiny.conditions(), tiny.latents()
    for block in who.denoiser.blocks:
        block.compile(dynamic=False, backend=compiler)
    counters.clear()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        context = who.denoiser.encode_context(c)
        who.denoiser(noisy, torch.ones(2), torch.zeros(2, noisy.audio.shape[1], 32), context, c.audio_time)
    assert len(graphs) == 2 < BLOCKS and not counters["graph_break"]
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_blocks_equal_the_plain_ones() -> None:
    who = character()
    fast = accelerate(deepcopy(who), InferencePlan(graphs=True, compile=True))
    assert distance(stream(fast, FEW), stream(who, FEW)) < 1e-5
    half = stream(accelerate(deepcopy(who), named_plan("bf16", "cpu")), FEW)
    assert distance(stream(accelerate(deepcopy(who), named_plan("compiled", "cpu")), FEW), half) < 0.02
    torch.compiler.reset()


def spoken(model: Orchestrator) -> list[Tensor]:
    """A prefix' last keys, c_a and the pointer."""
    c, noisy = tiny.conditions(), tiny.latents()
    with torch.no_grad():
        prefix = model.prefix(c)
        return [prefix.keys_values[-1][0], model.block(prefix, noisy.audio, torch.full((2,), 0.7)),
                model.point(prefix, noisy.audio)]


def grouped(heads: int, kv_heads: int) -> Orchestrator:
    """Tiny, with groups of queries, and biases that matter."""
    torch.manual_seed(0)
    config = replace(tiny.orchestrator().config, width=64, layers=6, heads=heads, kv_heads=kv_heads)
    model = Orchestrator(config, tiny.CLOCK, tiny.AUDIO, 32).requires_grad_(False).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_the_language_model_in_few_kernels_is_the_language_model(kv_heads: int) -> None:
    plain, fast, half, both = (grouped(4, kv_heads) for _ in range(4))
    assert fast.use_fast_llm(compiled=False)
    exact = spoken(plain)
    for ours, theirs in zip(spoken(fast), exact, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(fast.state_dict().values(), plain.state_dict().values(), strict=True))
    hold_bf16(half)
    hold_bf16(both)
    both.use_fast_llm(compiled=False)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        theirs, ours = spoken(half)[1].float(), spoken(both)[1].float()
    lost = [float((x - exact[1]).square().mean().sqrt() / exact[1].square().mean().sqrt()) for x in (theirs, ours)]
    assert 0 < lost[1] < 0.05 and lost[1] < 1.5 * lost[0]  # what bf16 costs, and no more


def test_all_layers_of_the_language_model_share_compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, real = [], torch.compile

    def compiler(graph, inputs):  # type: ignore[no-untyped-def]
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda fn, **options: real(fn, backend=compiler, **options))
    model = grouped(4, 2)
    model.use_fast_llm()
    counters.clear()
    spoken(model)
    assert len(graphs) == 4 and not counters["graph_break"]  # before and after attention, of a prefix and of a block
    torch.compiler.reset()


def test_codecs_decode_the_same_from_static_buffers() -> None:
    def with_codecs() -> Character:
        torch.manual_seed(0)
        who = character()
        video = Taef2Codec(tiny.CHANNELS).eval()
        return replace(who, video_codec=video, audio_codec=MelCodec(tiny.AUDIO))

    plain = with_codecs()
    fast = accelerate(with_codecs(), InferencePlan(graphs=True))
    assert isinstance(fast.video_codec, FastVideo) and fast.video_codec.fingerprint == plain.video_codec.fingerprint
    warm_up(fast, fast.start(tiny.streams(WORDS)), [FEW])
    heard = []
    for who in (plain, fast):
        sinks = [MemorySink(25, 16000) for _ in WORDS]
        session = StreamSession(who.clock, *who.codecs(), sinks, overlap=who is fast)
        session.run(stream_chunks(who, tiny.streams(WORDS), FEW, 3, exactly=True))
        heard.append([(s.frames, s.sound) for s in sinks])
    for (frames, sound), (frames_2, sound_2) in zip(*heard, strict=True):
        assert (frames == frames_2).all() and (sound == sound_2).all() and frames.std() > 0
    left = accelerate(with_codecs(), InferencePlan(graphs=True, codecs=False))
    assert isinstance(left.video_codec, Taef2Codec)


def test_layouts_of_weights_change_no_picture() -> None:
    torch.manual_seed(0)
    codec, z = Taef2Codec(8).eval(), torch.randn(1, 8, 3, 4, 4)
    before = codec.decode(z)
    lay_out(codec.modules(), torch.nn.Conv2d, torch.channels_last)
    torch.testing.assert_close(codec.decode(z), before, atol=1e-5, rtol=1e-5)
    codec.decoder.to(torch.bfloat16)  # takes its inputs in the type of its weights
    assert codec.decode(z).dtype == torch.float32 and float((codec.decode(z) - before).abs().mean()) < 0.02
