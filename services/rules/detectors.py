"""What redaction looks for: one table of detectors, each a pattern and the check that makes it precise.

Digits alone are no evidence. A card needs a network's first digit and Luhn's checksum; an IBAN its
country's length and ISO 7064's remainder; a telephone number a ``+``, a grouping that people use
for numbers to call, or a word such as "phone" before it. So order numbers (``4711-2231``), dates,
versions, prices, UUIDs and plain integers stay.

Every pattern is linear in the text: a start is tried only at the edge of a run, repeats are
bounded or possessive, and no two of them can share out the same characters in several ways.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_ESCAPED = r"(?<=\\[nrt])"
"""A value may follow an escape inside JSON text: the ``n`` of ``\\n`` belongs to the escape, not to the value."""
_EDGE = rf"(?:(?<![A-Za-z0-9_])|{_ESCAPED})"
_INNER_EDGE = r"(?:(?<![\w+].)(?<![0-9][./,:].)(?<!\w-.)|(?<=\\[nrt].))"
"""The same for numbers, one character late: a pattern that begins with a character is searched for fast."""


def _whole(match: re.Match[str]) -> int:
    return match.end()


def _lower(text: str) -> str:
    return text.lower()


def _compact(text: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", text.upper())


@dataclass(frozen=True, slots=True)
class Detector:
    """One way to find values of a kind."""

    kind: str
    pattern: re.Pattern[str]
    end: Callable[[re.Match[str]], int] = _whole
    """Where the value that begins with a match ends; -1 where the match is none after all."""
    canonical: Callable[[str], str] = str
    """Spellings of one value (``+49 30…`` and ``0049-30…``) give one text, and so one placeholder."""
    digits: int = 0
    """How many digits its values have in a row at least, but for what people put between them."""
    together: bool = False
    """Nothing is between the digits."""
    sign: bytes = b""
    """What every text with such a value has in it."""

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Find every value in ``text``: its first index and the index after its last."""
        at = 0
        while match := self.pattern.search(text, at):
            start, end = match.start(), self.end(match)
            if end > start:
                yield start, end
            at = end if end > start else start + 1


_DOUBLED = {digit: int(digit) * 2 - (9 if digit > "4" else 0) for digit in "0123456789"}


def luhn(digits: str) -> bool:
    """Say whether a number's last digit is its Luhn checksum."""
    total = sum(map(int, digits[-1::-2])) + sum(map(_DOUBLED.__getitem__, digits[-2::-2]))
    return total % 10 == 0


def iban_holds(iban: str) -> bool:
    """Say whether an IBAN (no spaces, upper case) leaves the remainder 1 that ISO 7064 asks for."""
    return int("".join(str(int(letter, 36)) for letter in iban[4:] + iban[:4])) % 97 == 1


# Found from the @ outwards, since texts have few of them: the domain after it, then what stands before it.
_LOCAL = r"[\w.%+-]"
_DOMAIN = re.compile(r"@(?:[^\W_](?:[\w-]*[^\W_])?+\.)+[^\W\d_]{2,}")
_MAILBOX = re.compile(rf"(?:(?<![\w.%+\\-])|{_ESCAPED}|(?<=\\)(?![nrt])){_LOCAL}++(?:'{_LOCAL}++)?+\Z")
_LONGEST_MAILBOX = 128


class _Emails(Detector):
    """E-mail addresses: a mailbox, an @, and a domain with a dot."""

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        done = 0
        for domain in _DOMAIN.finditer(text):
            first = max(done, domain.start() - _LONGEST_MAILBOX)
            mailbox = _MAILBOX.search(text[first : domain.start()])
            if mailbox:
                done = domain.end()
                yield first + mailbox.start(), done


_SECRETS = (
    "-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    # The end may be cut off. Neither a quote nor half an escape is taken: JSON around a key stays JSON.
    r"(?:[A-Za-z0-9+/=\s,:.]|\\[nrt]|-(?!----))*+(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?",
    rf"(?=[sgrAxhe]){_EDGE}(?:"
    r"sk-(?=[A-Za-z_-]{0,80}[0-9])[A-Za-z0-9_-]{16,}|"  # a digit: "sk-" also begins slugs of words
    r"[sr]k_[A-Za-z0-9_-]{16,}|"
    r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|"
    r"xox[a-z]-[A-Za-z0-9-]{12,}|hf_[A-Za-z0-9]{20,}|AIza[A-Za-z0-9_-]{30,}|"
    r"eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+)?+)",
    r"(?<=[Bb]earer )(?=[A-Za-z._~+/=-]{0,200}[0-9])[A-Za-z0-9._~+/=-]{16,}",
    r"(?<=BEARER )(?=[A-Za-z._~+/=-]{0,200}[0-9])[A-Za-z0-9._~+/=-]{16,}",
)
_SECRET_SIGNS = (
    *(b"sk-", b"k_", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"_pat_", b"glpat-", b"AKIA", b"ASIA", b"xox"),
    *(b"hf_", b"AIza", b"eyJ", b"earer ", b"EARER "),
)

# Card networks' numbers begin with 2 to 6; so no time in milli-, micro- or nanoseconds is one.
# Groups have four digits or more, but for the last: short groups are lists of numbers, and there are many of them.
_CARD = re.compile(
    rf"[2-6]{_INNER_EDGE}[0-9]{{3,18}}(?:[ \u00a0-][0-9]{{4,7}}){{0,4}}(?:[ \u00a0-][0-9]{{1,3}})?(?!\w)"
)
_GROUP = re.compile(r"[0-9]+")


def _card_end(match: re.Match[str]) -> int:
    """The longest run of whole groups with 13 to 19 digits and the right checksum."""
    digits, end = "", -1
    for group in _GROUP.finditer(match[0]):
        digits += group[0]
        if len(digits) > 19:
            break
        if len(digits) >= 13 and luhn(digits):
            end = match.start() + group.end()
    return end


_LENGTHS = (
    "NO15 BE16 DK18 FI18 FO18 GL18 NL18 MK19 SI19 AT20 BA20 EE20 KZ20 LT20 LU20 MN20 XK20 CH21 CR21 HR21 LI21 LV21 "
    "BG22 BH22 DE22 GB22 GE22 IE22 ME22 RS22 VA22 AE23 GI23 IL23 IQ23 OM23 SO23 TL23 AD24 CZ24 ES24 MD24 PK24 RO24 "
    "SA24 SE24 SK24 TN24 VG24 LY25 PT25 ST25 IS26 TR26 BI27 DJ27 FR27 GR27 IT27 MC27 MR27 SM27 AL28 AZ28 BY28 CY28 "
    "DO28 GT28 HU28 LB28 NI28 PL28 SV28 BR29 EG29 PS29 QA29 UA29 JO30 KW30 MU30 YE30 MT31 SC31 LC32 RU33"
)
"""ISO 13616's registry: the country and how many characters its IBANs have."""


def _iban() -> re.Pattern[str]:
    """Each country's exact length, unspaced or in groups of four."""
    countries: dict[int, list[str]] = {}
    for entry in _LENGTHS.split():
        countries.setdefault(int(entry[2:]), []).append(entry[:2])
    shapes = []
    for length, names in countries.items():
        fours, rest = divmod(length - 4, 4)
        tail = rf"(?:[ \u00a0-]?[A-Z0-9]{{{rest}}})" if rest else ""
        shapes.append(rf"(?:{'|'.join(names)})[0-9]{{2}}(?:[ \u00a0-]?[A-Z0-9]{{4}}){{{fours}}}{tail}")
    return re.compile(rf"(?=[A-Z][A-Z][0-9]){_EDGE}(?:{'|'.join(shapes)})(?![A-Z0-9])", re.IGNORECASE | re.ASCII)


# Between two digits of a telephone number: a dot, or a hyphen, slash or bracket with a space around it.
_BETWEEN = r"(?:[.]|[ \u00a0\u202f]?+[-/()\u2010\u2011\u2013]{0,2}+[ \u00a0\u202f]?+)"
_ENDS = r"(?!\w|[./][0-9]|-\w)"
_DATE = r"(?![0-9]{0,2}([./-])[0-9]{2}\1(?:[0-9]{4}|[0-9]{2})(?!\1?[0-9]))"
_PHONE_WORD = re.compile(
    r"\b(?:tel|telephone|telefon|phone|mobile|mobil|cell|cellphone|handy|fax|whatsapp|call me|reach me)\b"
    r"[\"'.:#=\s]{1,4}(?:(?:number|nummer|no|nr|is|ist|at|on|under|unter)\b[\"'.:#=\s]{1,4}){0,3}\Z",
    re.IGNORECASE,
)


def _if_grouped(match: re.Match[str]) -> int:
    return -1 if match[0].isdigit() else match.end()


def _if_called_phone(match: re.Match[str]) -> int:
    before = match.string[max(0, match.start() - 40) : match.start()]
    return match.end() if _PHONE_WORD.search(before) else -1


def _if_iban(match: re.Match[str]) -> int:
    return match.end() if iban_holds(_compact(match[0])) else -1


def _phone(text: str) -> str:
    digits = re.sub(r"[^0-9]", "", text.replace("(0)", "") if text.startswith(("+", "00")) else text)
    return digits.removeprefix("00")


DETECTORS: tuple[Detector, ...] = (
    *(Detector("secret", re.compile(pattern)) for pattern in _SECRETS),
    _Emails("email", _DOMAIN, canonical=_lower, sign=b"@"),
    Detector("iban", _iban(), _if_iban, _compact, 9),
    Detector("card", _CARD, _card_end, _compact, 13),
    *(
        Detector("phone", re.compile(pattern), end, _phone, digits, together, sign)
        for pattern, end, digits, together, sign in (
            # International: + and 8 to 15 digits; 00 only with groups, since zeros also fill up plain numbers.
            (rf"\+(?=[1-9(])\(?[0-9](?:{_BETWEEN}[0-9]){{7,14}}(?![0-9])", _whole, 8, False, b"+"),
            (rf"0{_INNER_EDGE}0[1-9](?:{_BETWEEN}[0-9]){{7,12}}{_ENDS}", _if_grouped, 10, False, b"00"),
            # A national 0 and groups: 9 to 12 digits that do not begin as a date does.
            (
                rf"[(0]{_INNER_EDGE}(?:(?<=\()0|(?<=0)){_DATE}[1-9](?:{_BETWEEN}[0-9]){{7,10}}{_ENDS}",
                _if_grouped,
                9,
                False,
                b"0",
            ),
            # North America: 3-3-4.
            (
                rf"[(1-9]{_INNER_EDGE}(?:(?<=1)[ .-]\(?[2-9]|(?<=\()[2-9]|(?<=[2-9]))[0-9]{{2}}"
                rf"(?:\) ?|[ .-])[2-9][0-9]{{2}}[ .-][0-9]{{4}}{_ENDS}",
                _whole,
                10,
                False,
                b"",
            ),
            (rf"[0-9]{_INNER_EDGE}[0-9]{{6,14}}{_ENDS}", _if_called_phone, 7, True, b""),
        )
    ),
)
"""In the order they are applied: what is longer or surer goes first."""


def spellings(value: str) -> set[str]:
    """Write a value as the detectors of every kind would, for comparing it with what they find."""
    return {detector.canonical(value) for detector in DETECTORS}


# Two readings of the text's bytes, each one C call: digits with what people put between them taken
# out, and everything that a token is made of.
_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x78 for byte in range(256))
_BETWEEN_DIGITS = b" -./()" + bytes(range(128, 256))
_TOKEN = bytes(0x61 if (chr(byte).isalnum() and byte < 128) or byte in b"_-" else 0x20 for byte in range(256))
_RUNS = sorted({detector.digits for detector in DETECTORS if detector.digits}, reverse=True)
_LONG_TOKEN = b"a" * 16
_PEM = b"-----BEGIN "
# a letter, a digit, or neither: an IBAN begins with two of each (a search by `re` takes eight times as long)
_SHAPE = bytes(
    0x20 if byte > 127 or not chr(byte).isalnum() else 0x30 if chr(byte).isdigit() else 0x61 for byte in range(256)
)
_COUNTRY = b"aa00"


def suspects(raw: bytes) -> list[Detector]:
    """Choose the detectors worth running on a text: for most texts none, and to say so takes microseconds.

    Args:
        raw: the text in UTF-8, or the JSON of values whose texts have no backslash of their own.
    """
    digits = raw.translate(_DIGITS, _BETWEEN_DIGITS)
    numbers = b"0" * _RUNS[-1] in digits
    token = _LONG_TOKEN in raw.translate(_TOKEN)
    email, pem = b"@" in raw, _PEM in raw
    if not (numbers or token or email or pem):
        return []
    longest = next(run for run in _RUNS if b"0" * run in digits) if numbers else 0
    together = numbers and b"0" * _RUNS[-1] in raw.translate(_DIGITS)
    worth = {
        "secret": pem or (token and any(sign in raw for sign in _SECRET_SIGNS)),
        "iban": longest > 8 and _COUNTRY in raw.translate(_SHAPE),
    }
    return [
        one
        for one in DETECTORS
        if one.digits <= longest and together >= one.together and one.sign in raw and worth.get(one.kind, True)
    ]
