"""Writes an mp4 while it is generated: h264 + AAC in fragments, so that the file plays up to its last fragment even
when the process is killed.

Every ``write`` starts with a key frame and fragments are cut after ``FRAGMENT_S`` at the latest; the header is written
with the first fragment (``delay_moov``), which lets it carry the AAC encoder's delay as an edit list: sound sample n is
heard exactly at n / sample_rate. Sound may arrive late (a decoder's look-ahead); ``close`` makes it as long as the
picture. A clean ``close`` also rewrites the file, without re-encoding, as a plain mp4 with its index in front.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError, StreamCharError

FRAGMENT_S = 0.4
MOVFLAGS = "frag_keyframe+delay_moov+default_base_moof"


class ClipWriter:
    """An mp4 that grows: frames and samples in, a playable file at any moment after the first second.

    Args:
        path: the file to write; its folder is made, an older file replaced.
        size: (height, width) of the frames, both even.
        fps: frames per second.
        sample_rate: sound samples per second.
        preset: of x264: how long it looks for savings. ``ultrafast`` takes a third of the time of ``veryfast`` and
            half as much space again.

    Raises:
        InputError: on an odd size, or a path that cannot be written.
        StreamCharError: from ``write`` and ``close`` when the disk is full.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], fps: float, sample_rate: int,
                 preset: str = "veryfast") -> None:
        import av

        if size[0] % 2 or size[1] % 2:
            raise InputError(f"h264 needs even frame sizes, got {size[0]}x{size[1]}; choose an even data size")
        self.path, self.fps, self.sample_rate = Path(path), Fraction(fps).limit_denominator(1001), sample_rate
        self.frames = 0
        self.samples = 0
        self._pending: NDArray[np.float32] = np.zeros(0, np.float32)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container: Any = av.open(str(self.path), "w", format="mp4", options={
                "movflags": MOVFLAGS, "frag_duration": str(int(FRAGMENT_S * 1e6)), "flush_packets": "1"})
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error}; choose another out=") from error
        self._video = self._container.add_stream("libx264", rate=self.fps, options={
            "preset": preset, "tune": "zerolatency", "crf": "17", "threads": "1"})
        self._video.height, self._video.width, self._video.pix_fmt = size[0], size[1], "yuv420p"
        # the quality of the clip should not hide that of the generator: a generous rate for speech
        self._audio = self._container.add_stream("aac", rate=sample_rate, layout="mono")
        self._audio.bit_rate = 6 * sample_rate
        for stream in (self._video, self._audio):  # encoders start now, not when the first chunk waits for them
            stream.codec_context.open()
        self._open = True

    def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None:
        """Append frames (F, H, W, 3) uint8 and samples (S,) in [-1, 1]; both continue where the last write ended."""
        import av

        try:
            for i, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = self.frames, 1 / self.fps
                if i == 0:
                    frame.pict_type = av.video.frame.PictureType.I
                self._container.mux(self._video.encode(frame))
                self.frames += 1
            self._pending = np.concatenate([self._pending, np.asarray(samples, np.float32)])
            self._write_sound(self._pending)
        except OSError as error:
            raise _disk_error(self.path, error) from error

    def _write_sound(self, samples: NDArray[np.float32]) -> None:
        """Encode samples up to the picture's end; the rest waits, so that sound never runs ahead of the picture."""
        import av

        room = int(self.frames * self.sample_rate / self.fps) - self.samples
        now, self._pending = samples[:room], samples[room:]
        if not len(now):
            return
        frame = av.AudioFrame.from_ndarray(np.clip(now, -1, 1)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self.sample_rate, self.samples, Fraction(1, self.sample_rate)
        self.samples += len(now)
        self._container.mux(self._audio.encode(frame))

    def close(self) -> None:
        """Make the sound as long as the picture, finish the file and put its index in front. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        try:
            short = int(self.frames * self.sample_rate / self.fps) - self.samples - len(self._pending)
            self._write_sound(np.concatenate([self._pending, np.zeros(max(short, 0), np.float32)]))
            if self.frames:
                self._container.mux(self._video.encode())
                self._container.mux(self._audio.encode())
            self._container.close()
            if self.frames:
                rewrite_plain(self.path)
        except OSError as error:
            raise _disk_error(self.path, error) from error

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def rewrite_plain(path: Path) -> None:
    """Copy a fragmented mp4's packets into a plain one with the index in front, replacing it atomically."""
    import av

    plain = path.with_name(path.name + ".part")
    with av.open(str(path)) as source, av.open(str(plain), "w", format="mp4",
                                               options={"movflags": "faststart"}) as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    os.replace(plain, path)


def write_clip(path: str | Path, frames: NDArray[np.uint8], samples: NDArray[np.floating], fps: float,
               sample_rate: int) -> None:
    """A whole clip at once: frames (F, H, W, 3) uint8, samples (S,) in [-1, 1]."""
    with ClipWriter(path, (frames.shape[1], frames.shape[2]), fps, sample_rate) as writer:
        writer.write(frames, samples)


def _disk_error(path: Path, error: OSError) -> StreamCharError:
    return StreamCharError(f"writing {path} failed: {error}; free space on that disk or choose another out=")
