"""Who a puppet is: skin, hair, eyes, clothes, background and voice, all from one seed."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from datamodules.puppet.speech import Voice

Colour = tuple[int, int, int]

VOICES = {
    "woman": ("en-us+f3", "en+f2", "en-us+f1", "en-us+f2"),
    "man": ("en", "en-us", "en-us+m7", "en-gb-x-rp", "en+m3", "en-us+m2"),
}
SKINS: tuple[Colour, ...] = ((255, 224, 200), (246, 205, 172), (234, 184, 146), (214, 158, 116), (181, 122, 84),
                             (148, 96, 64), (116, 74, 50))
HAIRS: dict[str, Colour] = {"black": (38, 32, 36), "dark brown": (74, 48, 36), "chestnut": (122, 72, 42),
                            "blond": (226, 186, 108), "red": (186, 82, 40), "grey": (160, 160, 166),
                            "blue": (70, 96, 170), "pink": (214, 110, 150)}
EYES: dict[str, Colour] = {"brown": (94, 58, 34), "blue": (62, 116, 178), "green": (74, 134, 84),
                           "grey": (104, 118, 130), "hazel": (140, 104, 50)}
STYLES = {
    "woman": ("bob", "long", "bun", "curly", "ponytail", "short"),
    "man": ("short", "side", "spiky", "curly", "cropped", "bald"),
}
CLOTHES = ("plain", "stripes", "collar", "vneck", "dots")
BACKDROPS = ("plain", "sun", "stripes", "hills", "window")


@dataclass(frozen=True)
class Identity:
    """One puppet. Colours are RGB in 0..255; shape numbers are factors around 1."""

    seed: int
    kind: str
    skin: Colour
    hair: Colour
    hair_name: str
    style: str
    eye: Colour
    eye_name: str
    shirt: Colour
    clothes: str
    backdrop: str
    wall: Colour
    face_width: float
    jaw: float
    eye_size: float
    eye_gap: float
    brow: float
    mouth_width: float
    lips: float
    lip: Colour
    glasses: bool
    beard: str
    freckles: bool
    earrings: bool
    voice: Voice

    @property
    def name(self) -> str:
        """Speaker and look id."""
        return f"puppet-{self.seed:05d}"

    @property
    def caption(self) -> str:
        """One sentence that describes the picture."""
        extras = [w for w, on in (("glasses", self.glasses), (self.beard, self.beard != "none"),
                                  ("freckles", self.freckles), ("earrings", self.earrings)) if on]
        hair = "no hair" if self.style == "bald" else f"{self.style} {self.hair_name} hair"
        return f"A drawn {self.kind} with {', '.join([hair, self.eye_name + ' eyes', *extras])} speaks to the viewer."


def make_identity(seed: int) -> Identity:
    """The puppet of a seed: the same seed always gives the same look and voice.

    Women and men alternate and walk through their voices, so that a few puppets already cover all of them.
    """
    rng = np.random.default_rng([0x9E37, seed])
    kind = "woman" if seed % 2 else "man"
    hue = float(rng.random())
    skin = _jitter(rng, SKINS[int(rng.integers(len(SKINS)))], 5)
    hair_name = str(rng.choice(list(HAIRS), p=[0.2, 0.2, 0.17, 0.15, 0.12, 0.06, 0.05, 0.05]))
    eye_name = str(rng.choice(list(EYES)))
    style = str(rng.choice(STYLES[kind]))
    rosy = 0.6 if kind == "woman" else 0.42
    woman = kind == "woman"
    return Identity(
        seed=seed, kind=kind, skin=skin, hair=_jitter(rng, HAIRS[hair_name], 8), hair_name=hair_name, style=style,
        eye=EYES[eye_name], eye_name=eye_name,
        shirt=_hsv(hue, rng.uniform(0.45, 0.75), rng.uniform(0.55, 0.85)), clothes=str(rng.choice(CLOTHES)),
        backdrop=str(rng.choice(BACKDROPS)),
        wall=_hsv(hue + rng.uniform(0.3, 0.7), rng.uniform(0.16, 0.38), rng.uniform(0.78, 0.94)),
        face_width=rng.uniform(0.93, 1.05), jaw=rng.uniform(0.10, 0.2) if woman else rng.uniform(0.02, 0.14),
        eye_size=rng.uniform(1.0, 1.15) if woman else rng.uniform(0.88, 1.02), eye_gap=rng.uniform(0.95, 1.07),
        brow=rng.uniform(0.7, 0.95) if woman else rng.uniform(1.0, 1.4), mouth_width=rng.uniform(0.93, 1.1),
        lips=rng.uniform(1.05, 1.3) if woman else rng.uniform(0.75, 0.95), lip=mix(skin, (188, 52, 66), rosy),
        glasses=bool(rng.random() < 0.22), beard=str(rng.choice(["none", "stubble", "moustache"], p=[0.6, 0.25, 0.15]))
        if not woman else "none", freckles=bool(rng.random() < 0.2), earrings=woman and bool(rng.random() < 0.4),
        voice=Voice(VOICES[kind][seed // 2 % len(VOICES[kind])], int(rng.integers(118, 152)), int(rng.integers(36, 66)),
                    int(rng.integers(35, 65))))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """``a`` moved towards ``b`` by ``share``."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _jitter(rng: np.random.Generator, colour: Colour, width: int) -> Colour:
    return tuple(int(np.clip(c + rng.integers(-width, width + 1), 0, 255)) for c in colour)  # type: ignore[return-value]


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))  # type: ignore[return-value]
