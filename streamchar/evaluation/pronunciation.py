"""A rough ARPABET pronunciation for words that the recogniser's dictionary lacks, by rule from their letters."""

from __future__ import annotations

CLUSTERS = {
    "tion": "SH AH N", "ough": "AO", "igh": "AY", "tch": "CH", "sch": "SH", "ch": "CH", "sh": "SH", "th": "TH",
    "ph": "F", "wh": "W", "ck": "K", "ng": "NG", "qu": "K W", "kn": "N", "wr": "R", "ee": "IY", "ea": "IY", "oo": "UW",
    "ou": "AW", "ow": "OW", "ai": "EY", "ay": "EY", "oi": "OY", "oy": "OY", "au": "AO", "aw": "AO", "ie": "IY",
    "er": "ER", "ir": "ER", "ur": "ER", "ar": "AA R", "or": "AO R",
}
LETTERS = {
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K",
    "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V",
    "w": "W", "x": "K S", "y": "IY", "z": "Z",
}
NUMBERS = {
    "0": "Z IH R OW", "1": "W AH N", "2": "T UW", "3": "TH R IY", "4": "F AO R", "5": "F AY V", "6": "S IH K S",
    "7": "S EH V AH N", "8": "EY T", "9": "N AY N",
}


def spell_phones(word: str) -> list[str]:
    """ARPABET phones of ``word``; never empty (a word without Latin letters or digits sounds as a neutral vowel)."""
    text, phones, i = word.lower(), [], 0
    while i < len(text):
        for size in (4, 3, 2):
            if text[i:i + size] in CLUSTERS:
                phones += CLUSTERS[text[i:i + size]].split()
                i += size
                break
        else:
            letter = text[i]
            silent = letter == "e" and i == len(text) - 1 and len(phones) > 1
            doubled = i > 0 and text[i - 1] == letter
            if not (silent or doubled and letter.isalpha()):
                phones += (LETTERS.get(letter) or NUMBERS.get(letter, "")).split()
            i += 1
    return phones or ["AH"]
