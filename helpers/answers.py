"""Read the answer of a model or of a data set, and judge it exactly.

Two steps, kept apart on purpose: `split_trace` separates the thought from
the answer, and `extract_answer` turns the answer into one canonical string:
"62", "3.5", "-4", "1/2" or "no solution". Equality is exact arithmetic with
`fractions.Fraction`, so "18.00" equals "18" and "1/2" equals "0.5".

Thousands separators, currency, units, bold, LaTeX dressing and the percent
sign are dropped ("25%" is 25, as in GSM8K); words ("seven") are not read.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

NO_SOLUTION = "no solution"
OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Trace:
    """A model's text in two parts.

    thinking: the thought; "" for an empty one, None when there is no tag.
    answer: what follows the thought; the whole text when there is no tag.
    closed: whether a thought was ended by `</think>`.
    """

    thinking: str | None
    answer: str
    closed: bool


def split_trace(text: str) -> Trace:
    """Split a generated text into its thought and its answer.

    Some templates open `<think>` in the prompt, so a lone `</think>` ends a
    thought that began before the text did. The *last* `</think>` counts, as
    in the decoding example on the Qwen3 model cards. A `<think>` that is
    never closed leaves no answer: what the model wrote is unfinished.
    """
    before, close, after = text.rpartition(CLOSE)
    if OPEN in after:
        thought = text if close else text.partition(OPEN)[2]
        return Trace(_without_tags(thought), "", closed=False)
    if close:
        thought = before.partition(OPEN)[2] if OPEN in before else before
        return Trace(_without_tags(thought), after.strip(), closed=True)
    return Trace(None, text.strip(), closed=False)


def _without_tags(thought: str) -> str:
    return thought.replace(OPEN, "").replace(CLOSE, "").strip()


def extract_answer(text: str) -> str | None:
    """Return the canonical final answer of a model's text, or None.

    Only the part after the thought counts. First hit wins: the last
    `\\boxed{}`, the last `####`, the last "answer is" / "answer:", the last
    number. "no solution" and its paraphrases win over plain numbers and over
    an explicit number that came before them. None: no number and no such
    phrase, or a thought that was never closed.
    """
    trace = split_trace(text)
    if trace.thinking is not None and not trace.closed:
        return None
    return _final_value(_plain(trace.answer))


def gold_answer(text: str | int) -> str:
    """Return the canonical answer of a GSM8K solution or of a bare value.

    GSM8K writes the answer after `####`: "... #### 1,234" gives "1234".

    Raises ValueError where there is neither a number nor "no solution".
    """
    tail = str(text).rpartition("####")[2]
    value = _final_value(_plain(tail))
    if value is None:
        raise ValueError(
            f"no answer in the gold text {str(text)[-60:]!r}: end it with "
            f"'#### 72' or with '#### {NO_SOLUTION}'."
        )
    return value


def is_correct(text: str, gold: str | int) -> bool:
    """Say whether the final answer of `text` equals `gold`, exactly.

    gold: a GSM8K answer ("... #### 72") or a bare value ("72"). Raises
    ValueError where `gold` itself holds no answer.
    """
    expected, given = gold_answer(gold), extract_answer(text)
    if given is None or NO_SOLUTION in (expected, given):
        return given == expected
    return Fraction(given) == Fraction(expected)


# --- from typeset text to plain text ---------------------------------------

_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_DASHES = "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"  # minus to en dash
_SIGNS = {ord(dash): "-" for dash in _DASHES} | {
    ord(sign): unicodedata.normalize("NFKC", sign).replace("\u2044", "/")
    for sign in _VULGAR
}
_REWRITES: list[tuple[str, str]] = [
    (r"(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3})", ","),  # 1 234 -> 1,234
    (r"(?<=[0-9])(?:\{,\}|\\[,!;])\s?(?=[0-9]{3})", ","),  # 1{,}234
    (r"(?<=[0-9])\s*(?=\\[dt]?frac)", " "),  # 2\frac12 -> 2 1/2
    (r"\\[dt]?frac\s*\{\s*(-?[0-9.,]+)\s*\}\s*\{\s*([0-9.,]+)\s*\}", r"\1/\2"),
    (r"\\[dt]?frac\s*([0-9])\s*([0-9])", r"\1/\2"),
    (r"\\(?:emptyset|varnothing)\b|∅", NO_SOLUTION),
    (r"\\(?:text|textbf|mathbf|mathrm|left|right)\b", " "),
    (r"\\[$%]|[$€£¥₹%]|\*\*|__|\b(?:USD|EUR|GBP)(?![a-z])", ""),
    (r"\bnegative\s+(?=[0-9.])", "-"),
]


def _plain(text: str) -> str:
    """Undo LaTeX, bold, currency and typographic signs."""
    spaced = re.sub(rf"(?<=[0-9])(?=[{_VULGAR}])", " ", text)  # 2½ -> 2 ½
    plain = spaced.translate(_SIGNS).replace("\u2019", "'")
    for pattern, replacement in _REWRITES:
        plain = re.sub(pattern, replacement, plain)
    return plain


# --- numbers ----------------------------------------------------------------

# At most 100 digits: a model that repeats itself has given no answer.
_DIGITS = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,30}(?:\.[0-9]{1,100})?|"
    r"[0-9]{1,100}(?:\.[0-9]{1,100})?)"
)
_NUMBER = re.compile(
    rf"""(?<![A-Za-z0-9^])(?<!\^\{{)(?<![0-9]\.)   # not in m2, 10^2, 1.2.3
    (?P<sign>(?<![)}}\]])-)?
    (?:(?P<whole>[0-9]{{1,9}})\s+(?=[0-9]{{1,9}}/[0-9]))?  # 2 1/2
    (?P<top>{_DIGITS}|\.[0-9]{{1,100}})
    (?:\s?/\s?(?P<bottom>{_DIGITS}))?
    (?![0-9]|e[-+]?[0-9]|st\b|nd\b|rd\b|th\b)      # not the 3rd, not 1e9
    (?:\s*(?P<scale>thousand|million|billion)\b)?""",
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {"": 1, "thousand": 10**3, "million": 10**6, "billion": 10**9}


def _canonical(match: re.Match[str]) -> str | None:
    """One number as text: reduced, no separators; None for x / 0."""
    top, bottom = (
        Fraction((match[part] or "1").replace(",", ""))
        for part in ("top", "bottom")
    )
    if bottom == 0:
        return None
    value = int(match["whole"] or 0) + top / bottom
    value *= _SCALES[(match["scale"] or "").lower()]
    value = -value if match["sign"] else value
    if match["bottom"] or value.denominator == 1:
        return str(value)
    with localcontext(prec=300):  # exact: at most 200 digits come in
        return f"{Decimal(value.numerator) / value.denominator:f}"


# --- which number is the answer ---------------------------------------------

_STATED = re.compile(
    r"\banswer(?:\s+(?!is\b)[^\s.:=?!]+){0,8}?\s*(?:\bis\b|:|=)", re.IGNORECASE
)
_STRONG = re.compile(
    r"\bno\s+(?!other|unique|single|more|further|better)"
    r"(?:[a-z]+\s+){0,3}?solutions?\b|"
    r"\bno\s+(?:valid|possible|consistent|correct)\s+answer|\bno\s+such\b|"
    r"(?:\bnot|n't)\s+have\s+(?:an?|any)\s+(?:[a-z]+\s+)?solution|"
    r"(?:\bnot|n't)\s+exist\b|\b(?:unsolvable|unsatisfiable|inconsistent)|"
    r"\b(?:cannot|can\s?not|can't)\s+be\s+(?:solved|satisfied|fulfilled)|"
    r"\bcontradict\w*",
    re.IGNORECASE,
)
_WEAK = re.compile(
    r"\bimpossible|(?:\bnot|n't)\s+(?:be\s+)?(?:possible|solvable)|"
    r"\b(?:cannot|can\s?not|can't)\s+(?:both\s+)?be(?=\s*(?:[.,;:!]|$)|"
    r"\s+(?:so|true|right|correct|met|found|answered|determined|both)\b)",
    re.IGNORECASE,
)
_WHOLE = re.compile(  # "62 are left out of 72": not the 72
    r"\b(?:out\s+of|left\s+of|of\s+(?:the|all|her|his|their|its))\s*$",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"(?:\bnot|n't|\bno|\bwithout)\s+(?:an?\s+|any\s+)?$", re.IGNORECASE
)
_RECENT, _REACH = 20, 400  # candidates read from the end; their length
_OPERATOR = re.compile(r"\s*(?:[-+*/×÷=]|x\s*[0-9]|\\)")
_THEREFORE = re.compile(r"\b(?:so|therefore|thus|hence)\b", re.IGNORECASE)


def _final_value(text: str) -> str | None:
    position, explicit = _explicit_value(text)
    strong, weak = _last_denial(_STRONG, text), _last_denial(_WEAK, text)
    if strong > position:
        return NO_SOLUTION
    if explicit is not None:
        return explicit
    if weak >= 0 and not _concludes_with_number(text[weak:]):
        return NO_SOLUTION
    numbers = [m for m in _NUMBER.finditer(text) if _canonical(m)]
    while len(numbers) > 1 and is_whole(text, *numbers[-2:]):
        numbers.pop()
    return _canonical(numbers[-1]) if numbers else None


def is_whole(text: str, part: re.Match[str], whole: re.Match[str]) -> bool:
    """Whether `whole` is only what `part`, in its sentence, is taken of."""
    between = text[part.end() : whole.start()]
    return bool(_WHOLE.search(between) and not re.search(r"[.!?]\s", between))


def _explicit_value(text: str) -> tuple[int, str | None]:
    """Position and value of the answer that is marked as final, if any."""
    hashes, stated = re.finditer("####", text), _STATED.finditer(text)
    for marked in (
        _boxed(text),
        [(match.end(), match.end() + _REACH) for match in hashes],
        [(match.end(), match.end() + _REACH) for match in stated],
    ):
        for start, end in reversed(marked[-_RECENT:]):
            value = _first_value(text[start:end])
            if value is not None:
                return start, value
    return -1, None


def _boxed(text: str) -> list[tuple[int, int]]:
    """Start and end of what the last \\boxed{...} hold, braces balanced."""
    spans = []
    openings = list(re.finditer(r"\\(?:f?boxed|fbox)\s*\{", text))
    for start in [match.end() for match in openings[-_RECENT:]]:
        depth = 1
        for end, sign in enumerate(text[start : start + _REACH], start):
            depth += {"{": 1, "}": -1}.get(sign, 0)
            if depth == 0:
                spans.append((start, end))
                break
    return spans


def _first_value(content: str) -> str | None:
    """The value at the head of `content`: its first line with any text.

    "12 - 5 = 7" gives 7: what follows the last equals sign.
    """
    line = content.strip().partition("\n")[0]
    sentence = re.split(r"[.!?](?=\s|$)", line, maxsplit=1)[0]
    number = _NUMBER.search(sentence)
    denial = _STRONG.search(sentence) or _WEAK.search(sentence)
    if denial and (number is None or denial.start() < number.start()):
        return NO_SOLUTION
    if number is None:
        return None
    total = _NUMBER.search(sentence, sentence.rfind("=") + 1)
    if _OPERATOR.match(sentence, number.end()) and total:
        computed = _OPERATOR.match(sentence, total.end()) is None
        number = total if computed else number
    return _canonical(number)


def _last_denial(pattern: re.Pattern[str], text: str) -> int:
    """Where the last phrase that is not itself negated starts, or -1."""
    starts = [match.start() for match in pattern.finditer(text)]
    denials = [
        start
        for start in starts
        if not _NEGATION.search(text[max(0, start - 20) : start])
    ]
    return denials[-1] if denials else -1


def _concludes_with_number(text: str) -> bool:
    """After "half a box is impossible": "..., so he buys 3 boxes"."""
    conclusion = _THEREFORE.search(text)
    return bool(conclusion and _NUMBER.search(text, conclusion.end()))


def outcome(completion: Any, correct: bool) -> str:
    """What became of one answer."""
    if correct:
        return "right"
    if completion.finish_reason == "length":
        return "cut by the token limit"
    if extract_answer(completion.text) is None:
        return "no answer found"
    return "wrong"
