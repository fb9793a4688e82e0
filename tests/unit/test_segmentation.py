"""What counts as a word in scripts with and without spaces, and that everything downstream counts the same."""

from __future__ import annotations

import pytest
import torch

from datamodules.intake.alignment import time_words
from datamodules.intake.rejection import Rejected
from datamodules.intake.transcripts import Cue
from streamchar.evaluation.recogniser import PocketsphinxAligner
from streamchar.evaluation.words import score_words
from streamchar.orchestrator.text import TokenizerUnits
from streamchar.segmentation import join_written, normalise_words, written_words
from streamchar.transcript import Transcript, Word, spoken_words, word_position_at


@pytest.mark.parametrize("text, words", [
    ("Don't stop, it's 3_4!", ["don't", "stop", "it's", "3", "4"]),
    ("Caf\u00e9 cafe\u0301", ["caf\u00e9", "caf\u00e9"]),
    ("你好，世界。", ["你", "好", "世", "界"]),
    ("我用iPhone拍了3张。", ["我", "用", "iphone", "拍", "了", "3", "张"]),
    ("ラーメンを食べる", list("ラーメンを食べる")),
    ("ที่นี่ ดี", ["ที่", "นี่", "ดี"]),
    ("한국어 문장", ["한국어", "문장"]),
    ("हिन्दी में", ["हिन्दी", "में"]),
    ("𠮷野", ["𠮷", "野"]),
    ("。、!", []),
])
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert normalise_words(text) == words
    assert [part for _, parts in written_words(text) for part in parts] == words


def test_written_words_keep_their_marks_and_make_the_text_again() -> None:
    assert written_words("– Well, twenty-one !") == [("Well,", ["well"]), ("twenty-one !", ["twenty", "one"])]
    assert [w for w, _ in written_words("「你好」，iPhone吗？")] == ["「你", "好」，", "iPhone", "吗？"]
    for text in ("Well, twenty-one of them.", "「你好」，iPhone吗？", "ラーメンを、食べる。", "한국어 문장."):
        assert join_written(w for w, _ in written_words(text)) == text


def test_times_pointer_and_errors_count_characters() -> None:
    timed = spoken_words([{"w": "sil", "start": 0.0, "end": 1.0}, {"w": "你好世界", "start": 1.0, "end": 3.0}])
    assert timed == [Word(c, 1 + i / 2, 1.5 + i / 2) for i, c in enumerate("你好世界")]
    assert word_position_at(timed, 2.25) == word_position_at(timed, 2.25, known=1.0) == 2.5
    assert score_words(["你好世界"], ["你好是界"]).wer == pytest.approx(0.25)


def test_tokens_of_characters_have_no_space_before_them() -> None:
    class Tokenizer:
        def __len__(self) -> int:
            return 1 << 21

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [ord(c) for c in text]

    transcript = Transcript(normalise_words("a 你好"), TokenizerUnits(Tokenizer()))
    assert [chr(ids[0] - 1) for ids in transcript.ids] == [" ", "a", "你", "好"]


def test_an_aligner_of_english_refuses_another_script_and_names_the_remedy() -> None:
    aligner = PocketsphinxAligner.__new__(PocketsphinxAligner)  # it is refused before the recogniser is asked
    with pytest.raises(Rejected, match=r"no letter of '你', '好'; give one of the language as intake.aligner"):
        time_words(Cue("你好"), torch.zeros(32000), aligner)
