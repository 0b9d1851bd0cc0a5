"""What each arm is given, and what it leaves behind."""

import pytest
import tiny

from helpers.evaluate import evaluate
from helpers.profiles import PROFILES
from helpers.rebuild import experiments
from helpers.rebuild.experiments import gold_text, train_arm
from helpers.sft import RunError


@pytest.fixture
def profile(tmp_path):
    return tiny.pair(tmp_path)


def test_gold_text_reads_as_a_student_writes():
    worked = "143 - 8 = <<143-8=135>>135\nleft.\n#### "
    text = "143 - 8 = 135 left.\n\n"
    assert gold_text(f"{worked}135") == f"{text}The answer is 135."
    none = gold_text(f"{worked}no solution")
    assert none == f"{text}There is no solution."


def test_budget_larger_than_the_file_names_the_command(profile, monkeypatch):
    monkeypatch.setattr(experiments, "ALL_TRACES", profile.run_folder / "none")
    shipped = PROFILES["mini"]
    assert len(experiments.budget_traces(shipped, 5)) == 5
    with pytest.raises(RunError, match="traces --limit 4500"):
        experiments.budget_traces(shipped, 100_000)
    gold = experiments.budget_traces(shipped, 250, "sft_gold")
    assert all("=" in row["qwen3_answer"] for row in gold)
    with pytest.raises(RunError, match="only 250 problems"):
        experiments.budget_traces(shipped, 251, "sft_gold")


@pytest.mark.parametrize("arm", experiments.ARMS)
def test_every_arm_trains_and_can_be_scored(arm, profile, monkeypatch):
    """Two epochs of eight traces: few traces are read more often."""
    monkeypatch.setattr(experiments, "READS", 16)
    student, done = train_arm(
        arm, tiny.traces(8), profile=profile, progress=False
    )
    assert done.steps == 4
    assert done.folder.name == f"{arm}_8_seed7"
    assert len(evaluate(student, tiny.problems(3), profile=profile).correct)
