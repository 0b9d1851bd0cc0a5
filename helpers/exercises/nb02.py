"""The exercises of notebook 02, and what they lead to."""

from helpers.answers import split_trace
from helpers.exercises.check import exercise

ANSWER = "<think>\n2 + 2 = 4.\n</think>\n\nIt is 4."
SOUND = {
    "qwen3_answer": ANSWER,
    "finish_reason": "stop",
    "completion_tokens": 20,
    "correct": True,
}
CUT = {"finish_reason": "length", "qwen3_answer": "<think>\n2 + 2"}


@exercise("02.1", "slots that are used hold len(part) * max(part) each",
          (([10, 10, 10, 10], 2), 0.0),
          (([10, 30], 2), 1 / 3),
          (([10, 30, 20], 2), 0.25),
          (([10, 30, 20], 1), 0.0))  # fmt: skip
def wasted_share(lengths: list[int], batch: int) -> float:
    """The share of decode slots that yield no token."""
    starts = range(0, len(lengths), batch)
    parts = [lengths[start : start + batch] for start in starts]
    return 1 - sum(lengths) / sum(len(part) * max(part) for part in parts)


@exercise("02.2", 'text.partition("</think>") says what it found',
          (ANSWER, ("2 + 2 = 4.", "It is 4.", True)),
          (ANSWER.removeprefix("<think>\n"), ("2 + 2 = 4.", "It is 4.", True)),
          ("<think>\n2 + 2", ("2 + 2", "", False)),
          ("<think>\n\n</think>\n\nIt is 4.", ("", "It is 4.", True))
          )  # fmt: skip
def split_thought(text: str) -> tuple[str, str, bool]:
    """(thought, answer, closed)."""
    before, close, after = text.partition("</think>")
    thought = before.removeprefix("<think>").strip()
    return thought, after.strip(), close != ""


@exercise("02.3", "four conditions, all of them must hold",
          ((SOUND, 20), True),
          ((SOUND | {"correct": False}, 20), False),
          ((SOUND, 19), False),
          ((SOUND | CUT | {"correct": False}, 20), False),
          ((SOUND | {"finish_reason": "length"}, 20), False),
          ((SOUND | {"qwen3_answer": "It is 4."}, 20), False))  # fmt: skip
def worth_training(row: dict, max_tokens: int) -> bool:
    """Keep this row of a trace file?"""
    return (
        row["finish_reason"] == "stop"
        and split_trace(row["qwen3_answer"]).closed
        and row["correct"]
        and row["completion_tokens"] <= max_tokens
    )


def colleagues_rows(traces: list[dict]) -> list[dict]:
    """As many rows as there are traces, all right, and what is wrong here."""
    right = [row for row in traces if row["correct"]]
    return right + right[: len(traces) - len(right)]


@exercise("02.4", "the set of the rows' ids, then those not in it",
          (([{"id": "b"}, {"id": "b"}], ["a", "b", "c"]), ["a", "c"]),
          (([{"id": "a"}, {"id": "b"}], ["a", "b"]), []),
          (([], ["a"]), ["a"]))  # fmt: skip
def lost_questions(rows: list[dict], ids: list[str]) -> list[str]:
    """The ids without a row, in order."""
    answered = {row["id"] for row in rows}
    return [name for name in ids if name not in answered]
