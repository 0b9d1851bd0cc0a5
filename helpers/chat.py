"""From a question to token ids, through the model's own chat template.

One place decides what a model sees, so that training and inference cannot
drift apart: the prompt ids are made by `prompt_ids` in both, and a training
example is those ids followed by the answer and the end-of-turn token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from helpers import CourseError
from helpers.files.template import fill_template

SENTINEL = "\u2402ANSWER\u2403"
THINK_OPEN = "<think>\n"
THINK_TAGS = ("<think>", "</think>")

Messages = list[dict[str, str]]


def student_messages(question: str, answer: str | None = None) -> Messages:
    """The conversation a student is trained on, or asked to continue."""
    messages = [{"role": "user", "content": f"Question: {question}"}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return messages


@lru_cache(maxsize=16)
def control_pattern(
    tokenizer: Any, size: int, keep: tuple[str, ...]
) -> re.Pattern[str]:
    """Matches every added token that looks like markup, but those of `keep`.

    One pattern, because the real Gemma has 6,400 such tokens. size: the
    tokenizer's length, so that a token that was added later is matched.
    """
    tokens = {t.content for t in tokenizer.added_tokens_decoder.values()}
    tokens |= set(tokenizer.all_special_tokens)
    markup = [t for t in tokens - set(keep) if re.fullmatch(r"<\S+>", t)]
    markup.sort(key=len, reverse=True)
    return re.compile("|".join(map(re.escape, markup)) or r"(?!)")


def disarm(text: str, tokenizer: Any, *, role: str = "user") -> str:
    """Break control tokens inside a message: `<eos>` becomes `< eos>`.

    A question may quote `<end_of_turn>`; without this it would close the
    user's turn and put words into the model's mouth. The assistant's own
    thought keeps its tags.
    """
    keep = THINK_TAGS if role == "assistant" else ()
    pattern = control_pattern(tokenizer, len(tokenizer), keep)
    return pattern.sub(lambda token: f"< {token[0][1:]}", text)


def render(messages: Messages, tokenizer: Any, *, generate: bool) -> str:
    """The template's text, control tokens inside the messages disarmed."""
    if not tokenizer.chat_template:
        raise CourseError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template. "
            "Use the instruction-tuned model (-it), or pass chat_template."
        )
    safe = [
        {**m, "content": disarm(m["content"], tokenizer, role=m["role"])}
        for m in messages
    ]
    return fill_template(tokenizer, safe, generate=generate)


def encode_text(text: str, tokenizer: Any) -> list[int]:
    """Ids of rendered text; nothing is added, the template wrote it all."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def prompt_ids(messages: Messages, tokenizer: Any) -> list[int]:
    """Ids of a conversation up to the point where the model speaks.

    Raises CourseError when the prompt does not hold exactly one BOS (none for
    tokenizers that have none).
    """
    ids = encode_text(render(messages, tokenizer, generate=True), tokenizer)
    check_single_bos(ids, tokenizer)
    return ids


def check_single_bos(ids: list[int], tokenizer: Any) -> None:
    """Exactly one BOS, at the front, where the tokenizer has one."""
    bos = tokenizer.bos_token_id
    if bos is not None and (ids[:1] != [bos] or ids.count(bos) != 1):
        raise CourseError(
            f"the prompt holds {ids.count(bos)} BOS tokens, expected one in "
            "front. Tokenize template text with add_special_tokens=False."
        )


def end_of_turn(tokenizer: Any) -> str:
    """The text that the template writes after an assistant's answer."""
    messages = student_messages("?", SENTINEL)
    text = render(messages, tokenizer, generate=False)
    return text.rpartition(SENTINEL)[2].rstrip("\n")


def encode_example(
    messages: Messages, tokenizer: Any, *, max_length: int
) -> dict[str, list[int]] | None:
    """One training row: `input_ids` and `labels`, -100 on the prompt.

    The answer and the end-of-turn token are trained on, the prompt is not.
    Returns None for a row longer than `max_length` tokens: it is for the
    caller to report it; a cut row would teach the model to stop mid-thought.
    Raises CourseError when there is no answer to train on.
    """
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise CourseError("the last message must be a non-empty answer")
    prompt = render(messages[:-1], tokenizer, generate=True)
    answer = disarm(messages[-1]["content"], tokenizer, role="assistant")
    if prompt.endswith(THINK_OPEN):  # the template has opened the thought
        answer = answer.removeprefix(THINK_OPEN)
    head = prompt_ids(messages[:-1], tokenizer)
    tail = encode_text(answer + end_of_turn(tokenizer), tokenizer)
    if len(head) + len(tail) > max_length:
        return None
    return {"input_ids": head + tail, "labels": [-100] * len(head) + tail}


def trained_share(rows: list[dict[str, list[int]]]) -> float:
    """Share of tokens that carry a label; raises unless 0 < share < 1."""
    trained = [label != -100 for row in rows for label in row["labels"]]
    share = sum(trained) / max(1, len(trained))
    if not 0 < share < 1:
        raise CourseError(
            f"{share:.0%} of the tokens are trained on; expected a share "
            "between 0 and 1. Check where the labels are masked."
        )
    return share


def encode_trace(trace: dict, tokenizer: Any, max_length: int) -> dict | None:
    """The training row of a trace; None where it is too long."""
    messages = student_messages(trace["question"], trace["qwen3_answer"])
    return encode_example(messages, tokenizer, max_length=max_length)


def encode_traces(
    traces: Iterable[dict], tokenizer: Any, *, max_length: int
) -> tuple[Any, int]:
    """Rows of `input_ids` and `labels`, and how many were too long.

    A row longer than `max_length` is dropped, never cut. Raises CourseError
    when nothing is left, or when no token or every token is trained.
    """
    from datasets import Dataset

    rows = [encode_trace(trace, tokenizer, max_length) for trace in traces]
    dropped = rows.count(None)
    rows = [row for row in rows if row is not None]
    if not rows:
        raise CourseError(
            f"no trace is left to train on ({dropped} were longer than "
            f"{max_length} tokens). Raise DISTILL_MAX_LENGTH or relax the "
            "filter."
        )
    trained_share(rows)
    return Dataset.from_list(rows), dropped


def completion_text(ids: list[int], prompt: str, tokenizer: Any) -> str:
    """Generated ids as text, the thought re-opened where the prompt did."""
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return THINK_OPEN + text if prompt.endswith(THINK_OPEN) else text


def check_vocabularies(
    student_tokenizer: Any,
    teacher_tokenizer: Any,
    student_vocab: int,
    teacher_vocab: int,
) -> None:
    """Logits can be compared only where id n is the same token for both.

    student_vocab, teacher_vocab: the widths of the logits, often padded to a
    round number. Raises CourseError when these or the tokenizers differ.
    """
    student = student_tokenizer.get_vocab()
    teacher = teacher_tokenizer.get_vocab()
    if student != teacher:
        shared = len(student.items() & teacher.items())
        raise CourseError(
            f"the tokenizers differ: {len(student)} tokens, the teacher's "
            f"{len(teacher)}, and {shared} with the same id. Choose a pair "
            "with one tokenizer, or train on the teacher's text."
        )
    if student_vocab != teacher_vocab:
        size = min(len(student), student_vocab, teacher_vocab)
        raise CourseError(
            f"the student's logits are {student_vocab} wide and the "
            f"teacher's {teacher_vocab}: with one tokenizer, this is padding, "
            f"so cut both with logits[..., :{size}]"
        )
