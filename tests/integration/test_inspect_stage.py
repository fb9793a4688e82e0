"""Stage inspect: the page's files exist and its numbers are those of the item."""

import re

import numpy as np
import pytest
import torch

from datamodules.compose import ItemComposer
from datamodules.config import DataConfig
from datamodules.latent_shards import LatentStore
from pipelines.inspecting.page import page, seconds_of
from pipelines.inspecting.views import ItemViewer
from pipelines.stages.inspect import _files
from streamchar.orchestrator.text import SpelledWords
from tests.latent_fakes import CLOCK, WINDOW, write_store


class FlatVideo:
    """Every frame a grey that says which frame of the clip it is (channel 0 of the fake latents)."""

    channels, spatial_stride, temporal_stride, fingerprint = 2, 8, 4, "v"

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        grey = latents[:, 0, :, 0, 0] / 255  # (B, T)
        frames = torch.cat([grey[:, :1], grey[:, 1:].repeat_interleave(4, 1)], 1)
        return frames[:, :, None, None, None].expand(-1, -1, 3, 16, 16)


class SecondsAudio:
    """Every sample the second at which its latent starts."""

    channels, latent_rate, sample_rate, lookahead, fingerprint = 2, 25.0, 16000, 0, "a"

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents[:, 0] / 10).repeat_interleave(640)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    store = LatentStore(write_store(tmp_path_factory.mktemp("latents"), clips=12), CLOCK)
    cfg = DataConfig(pointer_jitter=0.0, chunk_starts="grid")
    items = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), cfg, seed=2)
    return ItemViewer(items, FlatVideo(), SecondsAudio())


def test_a_view_shows_motion_chunk_sound_and_words_at_their_times(viewer):
    view = next(v for v in map(viewer.view, range(50)) if v.motion_frames and "quiet" not in v.role)
    item = viewer.items.item(view.position)
    start = viewer.items.start(item.place)
    assert view.motion_frames == 20 and len(view.frames) == 20 + 33
    greys = view.frames[:, 0, 0, 0].astype(int)
    assert greys[20] == round(start * 25) and greys[0] < greys[19] < greys[20] <= greys[-1]
    at_chunk = view.sound[round(20 / 25 * 16000)] * 10
    assert at_chunk == pytest.approx(start, abs=0.05)
    assert len(view.sound) == round(53 / 25 * 16000) and view.ref.shape == (16, 16, 3) and len(view.sink) == 9
    spoken = [w.text for w in view.words if w.part == "spoken"]
    todo = [w for w in view.words if w.part == "todo"]
    assert len(spoken) == len(item.text.spoken) and len(todo) == len(item.text.todo)
    assert seconds_of(view, view.cursor) == pytest.approx(0.0, abs=0.02)
    end = min(view.chunk_s, max(w.end for w in view.words))
    assert seconds_of(view, view.pointer) == pytest.approx(end, abs=0.02)


def test_the_page_refers_to_files_that_are_there(viewer, tmp_path):
    (tmp_path / "items").mkdir()
    views = [viewer.view(p) for p in range(6)]
    html = page("<Items>", {"clips": "12"}, [(v, _files(v, tmp_path, 25.0, 16000)) for v in views])
    named = re.findall(r'src="([^"]+)"', html)
    assert len(named) >= 12 and all((tmp_path / name).stat().st_size for name in named)
    assert "&lt;Items&gt;" in html and html.count("<section") == 6
    assert html.count("<line class=target") == 6 and "http" not in html


def test_items_of_sound_have_no_pictures(tmp_path):
    store = LatentStore(write_store(tmp_path / "latents", video=False), CLOCK)
    items = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), DataConfig(), seed=2, with_video=False)
    (tmp_path / "items").mkdir()
    view = ItemViewer(items, FlatVideo(), SecondsAudio()).view(0)
    files = _files(view, tmp_path, 25.0, 16000)
    assert files["film"].endswith(".wav") and "ref" not in files
    assert len(view.sound) == len(view.history) and np.isfinite(view.sound).all()
