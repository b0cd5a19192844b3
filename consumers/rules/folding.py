"""Text as an eye reads it: lookalikes, invisible characters and styles undone, so that patterns meet what was meant."""

from __future__ import annotations

import re
import unicodedata

# letters of other alphabets that look like Latin ones (the common ones of Unicode's confusables, UTS 39)
_LOOKALIKES = str.maketrans(
    "авеікмнорстухѕјԁԛԝһгαεικνορτυχωсɡɩıАВЕІКМНОРСТУХЅЈԚԜҺΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "abeikmhopctyxsjdqwhraeikvoptuxwcgliabeikmhopctyxsjqwhabezhikmnoptyx",
)
_BLANKS = re.compile(r"[\u115f\u1160\u2800\u3164\uffa0]")
"""Letters and symbols by their category that show nothing."""
_TAGS = re.compile(r"[\U000e0020-\U000e007e]{4,}")
_FLAG = "\U0001f3f4"
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'"})


def fold(text: str) -> str:
    """Compatibility forms resolved, invisible characters gone, case folded, white space single.

    Variation selectors, zero-width characters, soft hyphens and direction marks are invisible; marks that stay
    alone on a letter (accents) are kept.
    """
    if text.isascii():
        return " ".join(text.translate(_APOSTROPHES).casefold().split())
    plain = _BLANKS.sub(" ", unicodedata.normalize("NFKC", text)).translate(_APOSTROPHES)
    seen = "".join(sign for sign in plain if unicodedata.category(sign) != "Cf" and not "\ufe00" <= sign <= "\ufe0f")
    return " ".join(seen.casefold().split())


def latin(folded: str) -> str:
    """Folded text with lookalikes as the Latin letters that they look like, and without accents.

    What is written in another alphabet is gibberish then: for patterns of Latin letters alone.
    """
    if folded.isascii():
        return folded
    bare = unicodedata.normalize("NFKD", folded.translate(_LOOKALIKES))
    return "".join(sign for sign in bare if unicodedata.category(sign) != "Mn")


def skeleton(text: str) -> str:
    """What is left of a text without case, accents, lookalikes, spaces and punctuation; two look the same if equal."""
    return "".join(sign for sign in latin(fold(text)) if unicodedata.category(sign)[0] in "LN")


def hidden(text: str) -> str:
    """Text that is written in Unicode's invisible tag characters (U+E0020-E007E); flags of regions use them too."""
    runs = (match for match in _TAGS.finditer(text) if not text[: match.start()].endswith(_FLAG))
    return " ".join("".join(chr(ord(sign) - 0xE0000) for sign in match[0]) for match in runs)
