"""helpers.evaluate: counted by hand on hand-made answers."""

import json
import sys
from functools import partial
from pathlib import Path

import forked
import numpy as np
import pytest
import tiny
import torch
from scipy.stats import binomtest, ttest_rel
from waiting import wait_until

from helpers import CourseError, chat
from helpers.evaluate import (
    Evaluation,
    compare_arms,
    evaluate,
    gap_closed,
    load_arm,
    mcnemar,
    render_prompts,
    wilson_interval,
)
from helpers.generate import Completion
from helpers.models import ModelError, peak_memory_mb, reset_peak
from helpers.profiles import PROFILES


def problem(gold: str, **fields) -> dict:
    return {"question": "How many?", "answer": f"#### {gold}", **fields}


PROBLEMS = [
    *2 * [problem("12", template="a", impossible=False)],
    *2 * [problem("no solution", template="b", impossible=True)],
    problem("7", template="c", impossible=False),
    problem("7"),
]
COMPLETIONS = [
    Completion("<think>\n6 + 6 = 12.\n</think>\n\nIt is 12.", 20, "stop"),
    Completion("<think>\n12\n</think>\n\nThe answer is 13.", 20, "stop"),
    Completion("There is no solution.", 5, "stop"),
    Completion("<think>\nno solution no solution", 160, "length"),
    Completion("I do not know.", 6, "stop"),
    Completion("The answer is 7. And so", 160, "length"),
]
MADE = Evaluation(PROBLEMS, COMPLETIONS, 12.345, 612.4)


def test_evaluation_counts_by_hand():
    assert MADE.correct == [True, False, True, False, False, True]
    assert MADE.score == "50.0% (3/6), 95% CI 18.8-81.2"
    others = ("wrong", "cut by the token limit", "no answer found")
    assert MADE.outcomes == {"right": 3, **dict.fromkeys(others, 1)}
    assert MADE.closed == 2
    assert MADE.part("impossible", True) == [True, False]
    assert MADE.part("template", "zzz") == []
    with pytest.raises(ValueError, match="zip"):  # one answer a problem
        _ = Evaluation(PROBLEMS, COMPLETIONS[:2], 1.0).correct


def test_render_prompts_free_and_think():
    problems, mini = tiny.problems(3), PROFILES["mini"]
    student = tiny.tokenizer("mini-gemma3")
    free = render_prompts(problems, student, mini)
    think = render_prompts(problems, student, mini, "think")
    assert think == [prompt + "<think>\n" for prompt in free]
    for prompt, row in zip(free, problems, strict=True):
        messages = chat.student_messages(row["question"])
        ids = chat.prompt_ids(messages, student)
        assert chat.encode_text(prompt, student) == ids
    teacher = tiny.tokenizer("mini-qwen3")
    free = render_prompts(problems, teacher, mini)
    assert free == render_prompts(problems, teacher, mini, "think")
    assert all(p.count("<think>") == 1 for p in free)


def test_evaluate_measures_its_own_peak(tmp_path):
    profile, loaded = tiny.profile(tmp_path), tiny.plain_student()
    if not reset_peak():
        pytest.skip("this system keeps the peak of a process")
    block = torch.ones(2**27, device=loaded.model.device)  # 512 MiB
    assert block[-1] == 1
    del block
    before = peak_memory_mb()
    made = evaluate(loaded, tiny.problems(2), profile=profile)
    assert 0 < made.peak_mib < before - 300


def test_evaluate_samples_a_teacher_with_the_prompt_of_its_traces(tmp_path):
    """Greedy, and with the student's prompt, before."""
    boxed = PROFILES["full"].teacher_prompt
    profile = tiny.profile(tmp_path, teacher_prompt=boxed)
    path, asked = tmp_path / "answers.jsonl", tiny.problems(4)

    def sampled(seed, path=None):
        options = {"profile": profile, "sampling": profile.sampling(seed)}
        asking = partial(evaluate, tiny.teacher(), asked, mode="teacher")
        return asking(path=path, **options).completions

    made = sampled(3, path)
    rows = [json.loads(line) for line in path.read_text().strip().split("\n")]
    assert all("\\boxed{}" in row["prompt"] for row in rows)
    assert rows[0]["sampling"]["temperature"] == 0.6
    assert sampled(3) == made != sampled(4, path)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_evaluate_goes_on_after_a_kill(tmp_path):
    folder, path = str(tiny.folder(tiny.TEACHER)), tmp_path / "a.jsonl"
    worker = forked.start(forked.sample, folder, path)
    wait_until(lambda: lines(path) >= 4)
    worker.kill()
    worker.join(120)
    answered = lines(path)
    assert 4 <= answered < 12, "it was not killed half way"
    with path.open("a") as file:
        file.write('\n{"prompt": "half a li')
    whole = forked.sample(folder, None)
    assert forked.sample(folder, path).completions == whole.completions
    assert lines(path) == 12 + 1  # no problem was asked twice


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun")
def test_evaluate_in_two_processes_shares_the_work(tmp_path):
    folder, path = str(tiny.folder(tiny.TEACHER)), tmp_path / "a.jsonl"
    forked.launch(2, forked.__file__, folder, path)
    assert [lines(part) for part in tmp_path.iterdir()] == [6, 6]
    whole = forked.sample(folder, None)
    assert forked.sample(folder, path).completions == whole.completions
    assert len(list(tmp_path.iterdir())) == 2  # nothing was asked again


def test_evaluate_asks_again_what_other_weights_answered(tmp_path):
    profile, asked = tiny.profile(tmp_path), tiny.problems(3)
    path = tmp_path / "answers.jsonl"
    for loaded in (tiny.plain_student(), tiny.teacher()):
        made = evaluate(loaded, asked, profile=profile, path=path)
        plain = evaluate(loaded, asked, profile=profile)
        assert made.completions == plain.completions
    evaluate(loaded, asked[:2], profile=profile, path=path)
    assert lines(path) == 6
    assert made.seconds > 0 and made.peak_mib > 0


def test_load_arm_wants_an_adapter_for_other_arms(tmp_path):
    profile = tiny.profile(tmp_path)
    with pytest.raises(ModelError, match="'techer'"):
        load_arm("techer", profile, None)
    with pytest.raises(ModelError, match="final: no adapter_model"):
        load_arm("student_after", profile, None)
    student = load_arm("student_before", profile, None)
    assert "gemma3" in student.model.config.model_type


@pytest.mark.parametrize(
    ("correct", "total"), [(124, 300), (0, 10), (10, 10), (1, 1)]
)
def test_wilson_interval_equals_scipys(correct, total):
    expected = binomtest(correct, total).proportion_ci(0.95, "wilson")
    assert wilson_interval(correct, total) == pytest.approx(expected, abs=1e-9)


def test_gap_closed():
    assert gap_closed(0.4, 0.8, 0.9) == pytest.approx(0.8)
    assert gap_closed(40, 30, 90) == pytest.approx(-0.2)
    with pytest.raises(CourseError, match="no gap"):
        gap_closed(0.9, 0.95, 0.9)


def test_mcnemar_hand_computed():
    # 1 lost, 5 won: 2 * (C(6,0) + C(6,1)) / 2**6 = 14 / 64
    before = [True] + [False] * 5 + [True] * 50
    after = [False] + [True] * 5 + [True] * 50
    expected = pytest.approx(14 / 64, abs=1e-12)
    assert mcnemar(before, after) == mcnemar(after, before) == expected
    assert mcnemar([True, False], [True, False]) == 1.0
    with pytest.raises(ValueError):
        mcnemar([True], [])


def simulated(generator, seeds, problems, *, gain):
    """Two arms whose problems differ in difficulty and seeds in luck."""
    hard = generator.normal(0.5, 2.0, problems)
    helped = generator.normal(gain, 0.7, problems)
    arms = []
    for shift in (hard, hard + helped):
        luck = generator.normal(0, 0.2, (seeds, 1))
        logits = shift + luck + generator.normal(0, 1.0, (seeds, problems))
        arms.append(generator.random(logits.shape) < 1 / (1 + np.exp(-logits)))
    return arms


def test_compare_arms_of_one_seed_or_problem_is_a_paired_t_test():
    generator = np.random.default_rng(3)
    first, second = generator.random((2, 40))
    expected = ttest_rel(second, first)
    interval = expected.confidence_interval(0.95)
    wanted = (np.mean(second - first), *interval, expected.pvalue)
    assert compare_arms(first, second) == pytest.approx(wanted)
    columns = compare_arms(first[:, None], second[:, None])
    assert columns == pytest.approx(wanted)
    same = np.eye(3, 5)
    assert compare_arms(same, same) == pytest.approx((0, 0, 0, 1), abs=1e-12)
    with pytest.raises(ValueError, match="same seeds and problems"):
        compare_arms(same, same[:2])


@pytest.mark.slow
@pytest.mark.parametrize("seeds, problems", [(3, 200), (5, 400), (10, 400)])
def test_compare_arms_covers_the_truth_in_93_to_98_percent(seeds, problems):
    """Over 2,000 simulations; pooling the seeds would cover far less."""
    generator = np.random.default_rng(seeds)
    large = simulated(generator, 2000, 2000, gain=0.3)
    truth = large[1].mean() - large[0].mean()
    hits = 0
    for _ in range(2000):
        pair = simulated(generator, seeds, problems, gain=0.3)
        _, low, high, _ = compare_arms(*pair)
        hits += low <= truth <= high
    assert 0.93 <= hits / 2000 <= 0.98
