"""The worked cases of the exercises in notebook 02."""

from helpers.exercises.check import Cases, exercise


@exercise("02.1", hint="slots that are used hold len(part) * max(part) each")
def wasted_share() -> Cases:
    """`wasted_share(lengths, batch)`: decode slots that yield no token."""
    yield ([10, 10, 10, 10], 2), 0.0
    yield ([10, 30], 2), 1 / 3
    yield ([10, 30, 20], 2), 0.25
    yield ([10, 30, 20], 1), 0.0


@exercise("02.2", hint='text.partition("</think>") says what it found')
def split_thought() -> Cases:
    """`split_thought(text)`: (thought, answer, closed)."""
    both = ("2 + 2 = 4.", "It is 4.", True)
    yield "<think>\n2 + 2 = 4.\n</think>\n\nIt is 4.", both
    yield "2 + 2 = 4.\n</think>\n\nIt is 4.", both
    yield "<think>\n2 + 2", ("2 + 2", "", False)
    yield "<think>\n\n</think>\n\nIt is 4.", ("", "It is 4.", True)


@exercise("02.3", hint="four conditions, all of them must hold")
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
