"""What models that cheat would score, measured on drawn clips: each cheat must come out badly on some measure."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from datamodules.puppet.config import PrepareConfig
from datamodules.puppet.puppet import mouth_box
from datamodules.puppet.recipe import plan_shards
from datamodules.puppet.take import Take, make_take
from pipelines.evaluating.cheats import add_cheats
from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Rendering, Subject
from pipelines.evaluating.mouths import Mouth
from pipelines.evaluating.scoring import Means, score
from pipelines.evaluating.words import hear_all
from streamchar.clock import ChunkClock
from streamchar.evaluation.config import EvaluateConfig
from streamchar.evaluation.identity import calibrate, identity_distance
from streamchar.evaluation.mouth import PuppetMouth, union
from streamchar.evaluation.report import CHEATS, Report

LOOKS = 5
# clip i shows look i mod LOOKS: the first five teach the mouth detector and give the references, the rest are scored
PUPPETS = PrepareConfig(clips=2 * LOOKS, val_clips=0, size=48, identities=LOOKS, grammar="grid", min_s=2.4, max_s=3.4,
                        max_sentences=1, workers=0)
CLOCK = ChunkClock(fps=25, chunk_frames=17, audio_rate=25, sample_rate=16000)


def subject_of(take: Take, reference: np.ndarray | None) -> Subject:
    return Subject(take.plan.key, " ".join(take.sentences), reference, {"real": Rendering(take.frames, take.wave)},
                   speaker=take.who.name, look=take.who.name)


@pytest.fixture(scope="module")
def takes() -> list[Take]:
    pytest.importorskip("espeakng_loader")
    return [make_take(clip, PUPPETS) for shard in plan_shards(PUPPETS) for clip in shard.clips]


@pytest.fixture(scope="module")
def subjects(takes: list[Take]) -> list[Subject]:
    found = [subject_of(take, lesson.frames[0]) for lesson, take in zip(takes, takes[LOOKS:], strict=False)]
    add_cheats(found, seed=0)
    return found


@pytest.fixture(scope="module")
def report(takes: list[Take], subjects: list[Subject]) -> Report:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    lessons = takes[:LOOKS]
    detector = PuppetMouth.fit([t.frames for t in lessons], [t.play.mouth[:, 0] for t in lessons],
                               union([mouth_box(t.play) for t in lessons]))
    means = Means(Devices(), Mouth(detector, "puppet detector", {}), [" ".join(t.sentences) for t in lessons],
                  [t.frames for t in lessons])
    out = Report("Cheats", {"clips": len(subjects)})
    with Progress(disable=True) as bar:
        score(out, subjects, means, EvaluateConfig(), CLOCK, "real", bar)
    return out


def values(report: Report, group: str, name: str) -> dict[str, float]:
    return next(r.values for r in report.rows if (r.group, r.name) == (group, name))


def test_what_is_real_looks_good(report: Report) -> None:
    assert values(report, "words", "word errors")["real"] < 25
    assert values(report, "words", "word errors, bigram")["real"] < 25
    assert values(report, "sync", "lag")["real"] in (-1, 0, 1)
    assert values(report, "sync", "correlation")["real"] > 0.6
    assert values(report, "identity", "relative")["real"] < 0.3
    assert values(report, "picture", "dynamic")["real"] > 0.8


def test_a_still_picture_is_frozen_and_out_of_sync_whatever_it_says(report: Report) -> None:
    for name in ("word errors", "word errors, bigram", "character errors", "repeated words", "inserted words"):
        words = values(report, "words", name)
        assert words["still"] == words["real"], name
    assert values(report, "picture", "motion")["still"] == 0
    assert values(report, "picture", "dynamic")["still"] == 0
    for name in ("lag", "correlation at lag 0", "correlation", "correlation of fast movements"):
        row = next(r for r in report.rows if (r.group, r.name) == ("sync", name))
        assert row.text("still") == "no signal", name


def test_anothers_sound_says_the_wrong_words_and_moves_the_wrong_lips(report: Report) -> None:
    assert values(report, "words", "word errors")["swapped"] > 50
    assert values(report, "words", "word errors, bigram")["swapped"] > 50
    fast = values(report, "sync", "correlation of fast movements")
    assert fast["real"] > 0.4 and fast["swapped"] < fast["real"] / 2
    # and nothing else gives it away: the pictures are real
    assert values(report, "identity", "relative")["swapped"] == values(report, "identity", "relative")["real"]


def test_one_sentence_for_all_has_the_wrong_words_and_face(report: Report, subjects: list[Subject], takes: list[Take]
                                                           ) -> None:
    assert values(report, "words", "word errors")["one"] > 50
    assert values(report, "sync", "correlation")["one"] > 0.6  # it is a real clip: lips alone do not tell
    far = values(report, "identity", "relative")
    assert far["one"] > far["real"] + 0.4
    scale = calibrate([t.frames for t in takes[:LOOKS]])
    for subject in subjects[1:]:  # the first may keep its own clip
        assert subject.reference is not None
        own, one = (scale.relative(identity_distance(subject.renderings[c].frames[::10], subject.reference))
                    for c in ("real", "one"))
        assert own < 0.3 < 0.5 < one, subject.look


def test_noise_says_nothing_and_looks_like_nobody(report: Report) -> None:
    assert values(report, "words", "word errors, bigram")["noise"] > 90
    assert values(report, "words", "word errors")["noise"] > 70
    assert values(report, "identity", "relative")["noise"] > 1
    assert values(report, "picture", "colour shift")["noise"] > 5
    assert not values(report, "sync", "correlation of fast movements")["noise"] > 0.2


def test_cheats_stand_in_a_table_of_their_own(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path)
    main, cheats = (tmp_path / "table.txt").read_text().split("What must look bad")
    titles = ("still picture", "another's sound", "one sentence", "noise")
    assert "real clips" in main and not any(f"{title} \u2502" in main for title in titles)
    assert all(title in cheats for title in ("real clips", *titles))
    assert "dynamic" in cheats and "no signal" in cheats

    page = (tmp_path / "index.html").read_text()
    main, cheats = page.split("<h2>What must look bad</h2>")
    assert not any(title in Headings.of(main) for title in titles)
    assert {"real clips", *titles} <= set(Headings.of(cheats))
    saved = json.loads((tmp_path / "report.json").read_text())["metrics"]
    assert all(f"eval/words/word_errors/{cheat}" in saved for cheat in CHEATS)


def test_a_sound_is_heard_once_however_many_columns_hold_it(subjects: list[Subject]) -> None:
    class Counting:
        times = 0

        def hear(self, wave: object) -> list[object]:
            self.times += 1
            return []

    listener = Counting()
    with Progress(disable=True) as bar:
        heard = hear_all(listener, subjects, CLOCK, bar, "")  # type: ignore[arg-type]
    assert {c: len(f) for c, f in heard.items()} == dict.fromkeys(("real", *CHEATS), LOOKS)
    assert listener.times == 3 * LOOKS  # real, swapped and noise; still and one have sounds of real clips


def test_cheats_are_made_of_the_recorded_clips(subjects: list[Subject]) -> None:
    for subject, next_ in zip(subjects, subjects[1:] + subjects[:1], strict=True):
        real, still, swapped, one, noise = (subject.renderings[c] for c in ("real", *CHEATS))
        assert (still.frames == subject.reference).all() and still.frames.shape == real.frames.shape
        assert still.sound is real.sound and swapped.frames is real.frames
        size = min(len(swapped.sound), len(next_.renderings["real"].sound))
        assert len(swapped.sound) == len(real.sound)
        assert (swapped.sound[:size] == next_.renderings["real"].sound[:size]).all() and not swapped.sound[size:].any()
        assert one is subjects[0].renderings["real"]
        assert noise.frames.shape == real.frames.shape and noise.sound.shape == real.sound.shape
        assert np.sqrt(np.mean(noise.sound**2)) == pytest.approx(np.sqrt(np.mean(real.sound**2)), rel=0.05)


def test_cheats_need_recorded_clips_and_some_need_two(takes: list[Take]) -> None:
    gone = Subject("gone", "place red at c nine again", None)
    alone = subject_of(takes[0], None)
    decoded = replace(alone, renderings={"codec": alone.renderings["real"]})
    for subject in (alone, decoded):
        add_cheats([gone, subject], seed=0)
        assert not gone.renderings
        assert set(subject.renderings) & set(CHEATS) == {"still", "noise"}
        assert (subject.renderings["still"].frames == takes[0].frames[0]).all()  # no reference: its first frame


class Headings(HTMLParser):
    """Texts of a page's table heads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False

    @classmethod
    def of(cls, html: str) -> list[str]:
        reader = cls()
        reader.feed(html)
        return reader.found

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._inside = tag == "th"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found.append(data)
