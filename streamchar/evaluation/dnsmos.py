"""Speech quality without a reference: DNSMOS P.835 (Reddy et al. 2022, arXiv 2110.01763) and P.808 (2010.15258).

Both networks look at 9.01 s. As the published script does, a shorter sound is doubled until it is long enough, windows
start every second, the P.835 outputs go through its published polynomials, and the windows' values are averaged.
Everything is a mean opinion score, about 1 (bad) to 5 (excellent).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamchar.errors import InputError
from streamchar.evaluation.slaney_mel import mel_power

SAMPLE_RATE = 16000
LENGTH_S = 9.01
MELS, MEL_WINDOW, MEL_HOP = 120, 321, 160
RANGE_DB = 80.0
P835_FILE, P808_FILE = "sig_bak_ovr.onnx", "model_v8.onnx"
POLYNOMIALS = ((-0.08397278, 1.22083953, 0.0052439), (-0.13166888, 1.60915514, -0.39604546),
               (-0.06766283, 1.11546468, 0.04602535))
"""Signal, background, overall: coefficients from the square down."""


@dataclass(frozen=True)
class DnsmosScore:
    """P.835: the speech itself (``signal``), the ``background``, both together (``overall``); ``p808``: P.808."""

    signal: float
    background: float
    overall: float
    p808: float


class Dnsmos:
    """Scores sounds with ``sig_bak_ovr.onnx`` and ``model_v8.onnx`` of one folder (microsoft/DNS-Challenge).

    Raises:
        InputError: when a file is missing, is no such network, or onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self._p835 = _open(Path(folder) / P835_FILE)
        self._p808 = _open(Path(folder) / P808_FILE)

    def score(self, wave: NDArray[np.floating] | Tensor) -> DnsmosScore:
        """(S,) in [-1, 1] at 16 kHz -> mean over the windows.

        Raises:
            InputError: if the sound is empty, not (S,) or not finite.
        """
        rows: list[list[float]] = []
        for part in windows(np.asarray(wave, np.float64)):
            raw = self._p835.run(None, {"input_1": part[None].astype(np.float32)})[0][0]
            mos = [float(np.polyval(p, float(x))) for p, x in zip(POLYNOMIALS, raw, strict=True)]
            mel = log_mel(part[:-MEL_HOP])[None].astype(np.float32)
            rows.append([*mos, float(self._p808.run(None, {"input_1": mel})[0][0, 0])])
        return DnsmosScore(*(float(v) for v in np.mean(rows, axis=0)))


def windows(samples: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """(S,) -> the 9.01 s windows that are scored, each (144160,)."""
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise InputError(f"DNSMOS needs a sound (samples,), finite and not empty, got {samples.shape}; give mono sound "
                         "at 16 kHz")
    size = int(LENGTH_S * SAMPLE_RATE)
    while len(samples) < size:
        samples = np.concatenate([samples, samples])
    count = int(len(samples) // SAMPLE_RATE - LENGTH_S) + 1
    return [samples[i * SAMPLE_RATE:i * SAMPLE_RATE + size] for i in range(count)]


def log_mel(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(144000,) -> (900, 120) in dB below the loudest value, mapped from [-80, 0] to [-1, 1]."""
    level = 10 * np.log10(np.maximum(mel_power(samples, SAMPLE_RATE, MEL_WINDOW, MEL_HOP, MELS), 1e-10))
    return (np.maximum(level - level.max(), -RANGE_DB) + RANGE_DB / 2) / (RANGE_DB / 2)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"DNSMOS network {path} does not exist; give a folder with {P835_FILE} and {P808_FILE} of "
                         "microsoft/DNS-Challenge (DNSMOS/DNSMOS)")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("DNSMOS needs onnxruntime; install the 'eval' extra: pip install .[eval]") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the same sums in the same order everywhere
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no public base class
        raise InputError(f"DNSMOS network {path} cannot be read: {error}; fetch it again") from error
