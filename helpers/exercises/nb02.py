"""The worked cases of the exercises in notebook 02, and what they lead to."""

from helpers.answers import split_trace
from helpers.exercises.check import Cases, exercise


def wasted(lengths: list[int], batch: int) -> float:
    """The reference of 02.1."""
    starts = range(0, len(lengths), batch)
    parts = [lengths[start : start + batch] for start in starts]
    return 1 - sum(lengths) / sum(len(part) * max(part) for part in parts)


def in_two(text: str) -> tuple[str, str, bool]:
    """The reference of 02.2."""
    before, close, after = text.partition("</think>")
    thought = before.removeprefix("<think>").strip()
    return thought, after.strip(), close != ""


def worth(row: dict, max_tokens: int) -> bool:
    """The reference of 02.3."""
    return (
        row["finish_reason"] == "stop"
        and split_trace(row["qwen3_answer"]).closed
        and row["correct"]
        and row["completion_tokens"] <= max_tokens
    )


@exercise("02.1", hint="slots that are used hold len(part) * max(part) each",
          reference=wasted)  # fmt: skip
def wasted_share() -> Cases:
    """`wasted_share(lengths, batch)`: decode slots that yield no token."""
    yield ([10, 10, 10, 10], 2), 0.0
    yield ([10, 30], 2), 1 / 3
    yield ([10, 30, 20], 2), 0.25
    yield ([10, 30, 20], 1), 0.0


@exercise("02.2", hint='text.partition("</think>") says what it found',
          reference=in_two)  # fmt: skip
def split_thought() -> Cases:
    """`split_thought(text)`: (thought, answer, closed)."""
    both = ("2 + 2 = 4.", "It is 4.", True)
    yield "<think>\n2 + 2 = 4.\n</think>\n\nIt is 4.", both
    yield "2 + 2 = 4.\n</think>\n\nIt is 4.", both
    yield "<think>\n2 + 2", ("2 + 2", "", False)
    yield "<think>\n\n</think>\n\nIt is 4.", ("", "It is 4.", True)


@exercise("02.3", hint="four conditions, all of them must hold",
          reference=worth)  # fmt: skip
def worth_training() -> Cases:
    """`worth_training(row, max_tokens)`: keep this row of a trace file?"""
    sound = {
        "qwen3_answer": "<think>\n2 + 2 = 4.\n</think>\n\nIt is 4.",
        "finish_reason": "stop",
        "completion_tokens": 20,
        "correct": True,
    }
    cut = {"finish_reason": "length", "qwen3_answer": "<think>\n2 + 2"}
    yield (sound, 20), True
    yield ({**sound, "correct": False}, 20), False
    yield (sound, 19), False
    yield ({**sound, **cut, "correct": False}, 20), False
    yield ({**sound, "finish_reason": "length"}, 20), False
    yield ({**sound, "qwen3_answer": "It is 4."}, 20), False


def unanswered(rows: list[dict], ids: list[str]) -> list[str]:
    """The reference of 02.4."""
    answered = {row["id"] for row in rows}
    return [name for name in ids if name not in answered]


def colleagues_rows(traces: list[dict]) -> list[dict]:
    """As many rows as there are traces, all right, and what is wrong here."""
    right = [row for row in traces if row["correct"]]
    return right + right[: len(traces) - len(right)]


@exercise("02.4", hint="the set of the rows' ids, then those not in it",
          reference=unanswered)  # fmt: skip
def lost_questions() -> Cases:
    """`lost_questions(rows, ids)`: the ids without a row, in order."""
    yield ([{"id": "b"}, {"id": "b"}], ["a", "b", "c"]), ["a", "c"]
    yield ([{"id": "a"}, {"id": "b"}], ["a", "b"]), []
    yield ([], ["a"]), ["a"]
