"""helpers.evaluate: counted by hand on hand-made answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from helpers import chat, evaluate
from helpers.evaluate import Evaluation, splits_of, student_prompts
from helpers.generate import Completion
from helpers.models import ModelError, peak_memory_mb, reset_peak
from helpers.results import read_results, to_result, write_result


def problem(gold: str, **fields) -> dict:
    return {"question": "How many?", "answer": f"#### {gold}", **fields}


PROBLEMS = [
    problem("12", template="a", impossible=False),
    problem("12", template="a", impossible=False),
    problem("no solution", template="b", impossible=True),
    problem("no solution", template="b", impossible=True),
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


def test_evaluation_correct_in_order():
    assert MADE.correct == [True, False, True, False, False, True]


def test_evaluation_outcomes_keep_format_failures_apart():
    assert MADE.outcomes == {
        "right": 3,
        "wrong": 1,
        "cut by the token limit": 1,
        "no answer found": 1,
    }


def test_evaluation_closed_counts_closed_thoughts():
    assert MADE.closed == 2


def test_evaluation_score_names_n_and_interval():
    assert MADE.score == "50.0% (3/6), 95% CI 18.8-81.2"


def test_evaluation_part_counts_correct_and_n():
    assert MADE.part("impossible", True) == (1, 2)
    assert MADE.part("impossible", False) == (1, 3)
    assert MADE.part("template", "a") == (1, 2)
    assert MADE.part("template", "zzz") == (0, 0)


def test_evaluation_wants_one_answer_a_problem():
    with pytest.raises(ValueError, match="zip"):
        _ = Evaluation(PROBLEMS, COMPLETIONS[:2], 1.0).correct


def test_splits_of_impossible_and_held_out():
    other = Evaluation(PROBLEMS[:2], COMPLETIONS[:2], 1.0)
    assert splits_of(MADE, other) == {
        "impossible": {"n": 2, "correct": 1},
        "held-out templates": {"n": 2, "correct": 1},
    }
    assert splits_of(other) == {}


def test_to_result_can_be_written_and_read(tmp_path):
    result = to_result(
        "student_before",
        [MADE],
        profile=tiny.PROFILES["mini"],
        seed=7,
        command="python3 -m helpers evaluate --arm student_before",
    )
    assert (result.n, result.correct, result.seconds) == (6, 3, 12.3)
    assert result.splits == {"impossible": {"n": 2, "correct": 1}}
    assert result.peak_memory_mb == 612.4
    write_result(result, tmp_path)
    assert read_results(tmp_path) == [result]
    assert result.notes == ""


def test_to_result_keeps_the_largest_peak_of_its_evaluations():
    def peak(*evaluations: Evaluation) -> float | None:
        return to_result(
            "teacher",
            list(evaluations),
            profile=tiny.PROFILES["mini"],
            seed=7,
            command="",
        ).peak_memory_mb

    unknown = Evaluation(PROBLEMS, COMPLETIONS, 1.0)
    assert peak(MADE, replace(MADE, peak_mib=700.0)) == 700.0
    assert peak(MADE, replace(MADE, peak_mib=500.0), unknown) == 612.4
    assert peak(unknown) is None


def test_to_result_notes_what_is_not_the_profiles_own():
    changed = replace(
        tiny.PROFILES["laptop"], student="/models/my-gemma", traces=50
    )
    result = to_result(
        "teacher", [MADE], profile=changed, seed=7, command="", notes="One."
    )
    assert result.profile == "laptop"
    assert result.notes == ("One. DISTILL_STUDENT=my-gemma DISTILL_TRACES=50")


def test_student_prompts_free_and_think():
    problems = tiny.problems(3)
    student = tiny.tokenizer("mini-gemma3")
    free = student_prompts(problems, student)
    think = student_prompts(problems, student, mode="think")
    for plain, thinking in zip(free, think, strict=True):
        assert plain.endswith("<start_of_turn>model\n")
        assert thinking == plain + "<think>\n"
    teacher = tiny.tokenizer("mini-qwen3")
    free = student_prompts(problems, teacher)
    assert free == student_prompts(problems, teacher, mode="think")
    assert all(p.count("<think>") == 1 for p in free)


def test_student_prompts_unknown_mode():
    with pytest.raises(ValueError, match="'fast'.*free or think"):
        student_prompts([], tiny.tokenizer("mini-gemma3"), mode="fast")


@pytest.mark.parametrize("mode", ["free", "think"])
def test_evaluate_asks_greedily_with_the_training_prompt(tmp_path, mode):
    profile = tiny.profile(tmp_path)
    problems = tiny.problems(5)
    loaded = tiny.plain_student()
    first = evaluate.evaluate(loaded, problems, profile=profile, mode=mode)
    bigger = replace(profile, evaluation_batch=5)
    second = evaluate.evaluate(loaded, problems, profile=bigger, mode=mode)
    assert first.completions == second.completions
    assert first.problems == problems and first.seconds > 0
    for completion in first.completions:
        assert completion.text.startswith("<think>\n") == (mode == "think")
        assert completion.tokens <= profile.max_new_tokens


def test_evaluate_measures_its_own_peak(tmp_path):
    profile, loaded = tiny.profile(tmp_path), tiny.plain_student()
    if not reset_peak():
        pytest.skip("this system keeps the peak of a process")
    block = torch.ones(2**27, device=loaded.model.device)  # 512 MiB
    assert block[-1] == 1
    del block
    before = peak_memory_mb()
    made = evaluate.evaluate(loaded, tiny.problems(2), profile=profile)
    assert 0 < made.peak_mib < before - 300


def test_evaluate_prompts_are_the_training_prompts():
    tokenizer = tiny.tokenizer("mini-gemma3")
    trace = tiny.traces(1)[0]
    messages = chat.student_messages(trace["question"], trace["qwen3_answer"])
    row = chat.encode_example(messages, tokenizer, max_length=320)
    head = row["labels"].count(-100)
    [prompt] = student_prompts([trace], tokenizer)
    assert chat.encode_text(prompt, tokenizer) == row["input_ids"][:head]


def test_load_arm_wants_an_adapter_for_other_arms(tmp_path):
    profile = tiny.profile(tmp_path)
    with pytest.raises(ModelError, match="'techer'.*--adapter.*teacher"):
        evaluate.load_arm("techer", profile, None)
    with pytest.raises(ModelError, match="final: no adapter_model"):
        evaluate.load_arm("student_after", profile, None)
    with pytest.raises(ModelError, match="elsewhere: no adapter_model"):
        evaluate.load_arm("sft_gold", profile, Path("elsewhere"))


def test_load_arm_teacher_and_student(tmp_path):
    profile = tiny.profile(tmp_path)
    teacher = evaluate.load_arm("teacher", profile, None)
    assert teacher.model.config.model_type == "qwen3"
    student = evaluate.load_arm("student_before", profile, None)
    assert "gemma3" in student.model.config.model_type
