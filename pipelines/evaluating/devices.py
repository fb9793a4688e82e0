"""The measuring networks that a folder holds; what is missing is said once, in the log and in the report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamchar.errors import InputError
from streamchar.evaluation.asr import NetworkRecogniser
from streamchar.evaluation.deep_features import I3DFeatures, InceptionFeatures
from streamchar.evaluation.dnsmos import Dnsmos
from streamchar.evaluation.face_identity import FaceIdentity
from streamchar.evaluation.syncnet_field import FieldSyncNet, load_field_syncnet
from streamchar.evaluation.voice_identity import VoiceIdentity

log = logging.getLogger(__name__)

FACE_MESH = "mediapipe_face/face_landmarks_detector.tflite"


@dataclass
class Devices:
    """Each device, or None where its file is not there. missing: what is not measured, and the file that would."""

    face: FaceIdentity | None = None
    voice: VoiceIdentity | None = None
    quality: Dnsmos | None = None
    recogniser: NetworkRecogniser | None = None
    inception: InceptionFeatures | None = None
    i3d: I3DFeatures | None = None
    syncnet: FieldSyncNet | None = None
    missing: dict[str, str] = field(default_factory=dict)


def face_mesh_of(parts: str | None) -> Path | None:
    """Where the face mesh would lie in ``parts``."""
    return Path(parts) / FACE_MESH if parts else None


def open_devices(parts: str | None, real_faces: bool) -> Devices:
    """Open every device whose file lies in ``parts``.

    ``real_faces`` False (drawn characters): face networks mean nothing and are left out.

    Raises:
        InputError: where the folder itself is missing, or a file in it is not what its name says.
    """
    root = Path(parts) if parts else None
    if root is not None and not root.is_dir():
        raise InputError(f"evaluate.parts={parts} is no folder; see `--help evaluate` for what it may hold")
    found = Devices()

    def take(what: str, pattern: str, build: Callable[[Path], Any]) -> Any:
        at = next(iter(sorted(root.glob(pattern))), None) if root is not None else None
        if at is None:
            found.missing[what] = pattern
            return None
        return build(at)

    if real_faces and take("lip sync from pixels", FACE_MESH, lambda p: p) is not None:
        found.face = take("identity of the face", "face_identity", lambda p: FaceIdentity(p, face_mesh_of(parts)))
    found.voice = take("voice similarity", "speaker_identity/*.pt", VoiceIdentity)
    found.quality = take("speech quality (DNSMOS)", "dnsmos", Dnsmos)
    found.recogniser = take("words by a network", "asr", NetworkRecogniser)
    found.inception = take("Frechet distance, Inception", "inception/inception-2015-12-05.pt", InceptionFeatures)
    found.i3d = take("Frechet distance, I3D", "i3d/i3d_torchscript.pt", I3DFeatures)
    if real_faces:
        found.syncnet = take("Sync-C, Sync-D (SyncNet v2)", "syncnet/syncnet_v2.model", load_field_syncnet)
    for what, pattern in found.missing.items() if root is not None else ():
        log.info("not measured: %s (no %s in evaluate.parts)", what, pattern)
    return found
