"""Pictures and sound to file bytes: H.264 in mp4, 16-bit wav."""

from __future__ import annotations

import io
import wave
from fractions import Fraction

import numpy as np


def encode_mp4(frames: np.ndarray, fps: float, crf: int) -> bytes:
    """(F, H, W, 3) uint8 -> an mp4 without sound; one thread, so that equal frames give equal bytes."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as box:
        stream = box.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "superfast", "threads": "1", "g": "50"}
        for picture in frames:
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(stream.encode(None))
    return buffer.getvalue()


def encode_wav(sound: np.ndarray, sample_rate: int) -> bytes:
    """(S,) float in [-1, 1] -> a mono 16-bit wav."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes(np.round(np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
