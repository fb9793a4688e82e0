"""The face mesh's mouth on real people: GRID clips, where the mouth goes with the sound."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from streamchar.errors import InputError
from streamchar.evaluation.face_mesh import FaceMeshMouth
from streamchar.evaluation.sync import DETAIL_S, mean_score, sync_score
from streamchar.streaming.reading import read_clip

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MODEL = DATA / "mediapipe_face" / "face_landmarks_detector.tflite"
SHARD = DATA / "grid" / "grid-s1-val-00000.tar"


@pytest.mark.skipif(not (MODEL.is_file() and SHARD.is_file()), reason="needs ../shared/data/{mediapipe_face,grid}")
def test_mouth_of_a_real_face_moves_with_the_sound(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    mouth, last = FaceMeshMouth(MODEL), None
    scores, details, swapped = [], [], []
    with tarfile.open(SHARD) as tar:
        names = [m.name for m in tar if m.name.endswith(".mp4")][:6]
        for name in names:
            (tmp_path / "clip.mp4").write_bytes(tar.extractfile(name).read())
            frames, sound, fps = read_clip(tmp_path / "clip.mp4", 16000)
            opening = mouth.opening(frames)
            assert np.isfinite(opening).all() and opening.min() >= 0 and opening.max() < 1
            scores.append(sync_score(opening, sound, fps, 16000))
            details.append(sync_score(opening, sound, fps, 16000, detail_s=DETAIL_S))
            if last is not None:
                swapped.append(sync_score(opening, last, fps, 16000, detail_s=DETAIL_S))
            last = sound
    print("real faces:", mean_score(scores))
    assert abs(mean_score(scores).lag) <= 1 and mean_score(scores).best > 0.5
    print("fast movements:", mean_score(details).best, "another clip's sound:", mean_score(swapped).best)
    assert mean_score(details).best > 0.3 > 0.2 > mean_score(swapped).best
    nobody = np.random.default_rng(0).integers(0, 255, (2, 160, 160, 3), np.uint8)
    assert np.isnan(mouth.opening(nobody)).all()


def test_a_missing_model_is_named() -> None:
    with pytest.raises(InputError, match="evaluate.parts"):
        FaceMeshMouth("nowhere.tflite")
