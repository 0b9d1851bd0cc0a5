"""What each arm is given, and what it leaves behind."""

from __future__ import annotations

import pytest
import tiny

from helpers.answers import extract_answer
from helpers.evaluate import evaluate
from helpers.profiles import PROFILES
from helpers.rebuild import experiments as arms
from helpers.rebuild.experiments import (
    budget_traces,
    gold_text,
    gold_traces,
    train_arm,
)
from helpers.sft import RunError


@pytest.fixture
def profile(tmp_path):
    return tiny.pair(tmp_path)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            "4 * 2 = <<4*2=8>>8 added.\n143 - 8 = <<143-8=135>>135 left."
            "\n#### 135",
            "4 * 2 = 8 added. 143 - 8 = 135 left.\n\nThe answer is 135.",
        ),
        (
            "9 - 5 = <<9-5=4>>4 left.\nThis cannot be.\n#### no solution",
            "9 - 5 = 4 left. This cannot be.\n\nThere is no solution.",
        ),
    ],
)
def test_gold_text_reads_as_a_student_writes(answer, text):
    assert gold_text(answer) == text


def test_gold_traces_keep_questions_and_results():
    traces = tiny.traces(20)
    for gold, trace in zip(gold_traces(traces), traces, strict=True):
        assert gold["question"] == trace["question"]
        assert extract_answer(gold["qwen3_answer"]) == extract_answer(
            trace["gold"]
        )


def test_budget_larger_than_the_file_names_the_command(profile, monkeypatch):
    monkeypatch.setattr(arms, "ALL_TRACES", profile.run_folder / "none")
    shipped = PROFILES["mini"]
    assert len(budget_traces(shipped, 5)) == 5
    with pytest.raises(RunError, match="traces --limit 4500"):
        budget_traces(shipped, 100_000)


@pytest.mark.parametrize("arm", arms.ARMS)
def test_every_arm_trains_and_can_be_scored(arm, profile):
    student, done = train_arm(
        arm, tiny.traces(8), profile=profile, epochs=2, progress=False
    )
    assert done.steps == 4
    assert done.folder.name == f"{arm}_8_seed7"
    assert len(evaluate(student, tiny.problems(3), profile=profile).correct)


def test_fewer_traces_are_read_more_often(profile, monkeypatch):
    monkeypatch.setattr(arms, "READS", 16)
    for count in (4, 16):
        _, done = train_arm(
            "sft_traces", tiny.traces(count), profile=profile, progress=False
        )
        assert done.steps == 4  # 16 rows in batches of 4
