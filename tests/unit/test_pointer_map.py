"""The pointer's heat map: what it shows is what the pointer computed, on the path that a stream takes."""

import numpy as np
import torch

from streamchar.evaluation.pointer_map import PointerMap, pointer_maps
from streamchar.evaluation.pointer_picture import draw_pointer_maps
from streamchar.rollout.chunk_loop import generate_chunk
from streamchar.rollout.plan import student_plan
from streamchar.transcript import Transcript
from tests import tiny_models as tiny


def test_shares_and_rest_of_a_frame_sum_to_one_and_words_not_offered_are_told():
    model, clip = tiny.orchestrator().eval(), tiny.spoken_clip()
    [found] = pointer_maps(model, clip.start("cpu"), clip.chunks(9), clip.batch.keys, clip.words)
    shares = found.shares()
    assert shares.shape == (6, tiny.CLOCK.audio_start(3)) and len(found.path) == 4
    assert np.allclose(np.nansum(shares, axis=0) + found.rest(), 1, atol=1e-5)
    assert found.weights()[:tiny.CLOCK.audio_owned(0)].sum() == np.float32(1.0)
    said = int(found.path[2][1])
    assert said and np.isnan(shares[:said, -1]).all() and not np.isnan(shares[:, 0]).any()
    assert found.true[0] == (0.0, 0.0) and found.true[-1][1] == 6.0


def test_the_path_is_that_of_the_stream_that_made_the_sound():
    character = tiny.character()
    batch = tiny.streams([["bin", "red", "at", "c", "nine", "now"] * 3, ["set", "blue"] * 4])
    memory, plan = character.start(batch), student_plan(character.diffusion)
    generate_chunk(character, memory, plan)
    before, made, stood = memory.copy(), [], [memory.pointer_words().tolist()]
    for _ in range(2):
        made.append(generate_chunk(character, memory, plan).latents)
        stood.append(memory.pointer_words().tolist())
    maps = pointer_maps(character.orchestrator, before, made, batch.keys)
    assert [[at for _, at in m.path] for m in maps] == [list(row) for row in zip(*stood, strict=True)]
    assert maps[0].begin == 17 / 25 and not maps[0].true


def test_units_of_one_word_are_summed():
    class Halves:
        width = 1

        def encode(self, word):
            return [[1], [2]]

    found = PointerMap("a", 0.0, 25.0, [(0.0, 0.0)])
    alpha = torch.tensor([[0.1, 0.2, 0.3, 0.4]])  # rest, second half of "red", both halves of "at"
    found.add(Transcript(["red", "at"], Halves()), 1, alpha, torch.ones(1), (0.04, 1.0))
    assert np.allclose(found.shares()[:, 0], [0.2, 0.7]) and np.allclose(found.rest(), 0.1)


def test_picture_of_short_and_long_transcripts(tmp_path):
    model, clip = tiny.orchestrator().eval(), tiny.spoken_clip()
    [known] = pointer_maps(model, clip.start("cpu"), clip.chunks(9), clip.batch.keys, clip.words)
    far = PointerMap("far", 9.0, 25.0, [(9.0, 40.0), (9.08, 41.0)], [], [f"w{i}" for i in range(90)],
                     [(40, np.array([1.0, 0.0], np.float32), 1.0)] * 2)
    nothing = PointerMap("nothing", 0.0, 25.0, [(0.0, 0.0)])
    draw_pointer_maps([known, nothing, far], tmp_path / "made" / "pointer.png")
    assert (tmp_path / "made" / "pointer.png").read_bytes()[:4] == b"\x89PNG"
    draw_pointer_maps([nothing], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
