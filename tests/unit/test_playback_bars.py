"""The probe's picture: bars as high as chunks took, late ones in another colour, the line at the budget."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from streamchar.evaluation.playback_bars import HEIGHT, KEEPS_UP, LATE, TOP, playback_bars


def test_bars_are_as_high_as_chunks_took_and_late_ones_stand_out() -> None:
    picture = playback_bars([2.0, 0.5, 1.5], 1.0, "step 7")
    ElementTree.fromstring(picture)
    bars = re.findall(r'<rect x="\d+" y="([\d.]+)" width="\d+" height="([\d.]+)" fill="(#\w+)"', picture)
    heights = [float(height) for _, height, _ in bars]
    assert [colour for *_, colour in bars] == [LATE, KEEPS_UP, LATE]
    assert heights[0] == pytest.approx(4 * heights[1], abs=0.2) and heights[0] < HEIGHT
    line = float(re.search(r'<line x1="\d+" y1="([\d.]+)"', picture).group(1))
    assert TOP + HEIGHT - line == pytest.approx(2 * heights[1], abs=0.2)
    assert ">2<" in picture and ">step 7<" in picture


def test_a_stream_without_chunks_has_no_picture() -> None:
    with pytest.raises(ValueError, match="no chunk was timed"):
        playback_bars([], 1.0)
