"""From a question to token ids, through the model's own chat template.

One place decides what a model sees, so that training and inference cannot
drift apart: the prompt ids are made by `prompt_ids` in both, and a training
example is those ids followed by the answer and the end-of-turn token.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from helpers import CourseError

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


def control_tokens(tokenizer: Any) -> list[str]:
    """Every added token that looks like markup, longest first."""
    added = {
        token.content for token in tokenizer.added_tokens_decoder.values()
    }
    added |= set(tokenizer.all_special_tokens)
    markup = [token for token in added if re.fullmatch(r"<\S+>", token)]
    return sorted(markup, key=len, reverse=True)


@lru_cache(maxsize=16)
def control_pattern(
    tokenizer: Any, size: int, keep: tuple[str, ...]
) -> re.Pattern[str]:
    """One pattern for all of them: the real Gemma has 6,400 such tokens.

    `size` is the tokenizer's length, so that an added token is seen.
    """
    tokens = [t for t in control_tokens(tokenizer) if t not in keep]
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")


def disarm(text: str, tokenizer: Any, *, keep: tuple[str, ...] = ()) -> str:
    """Break control tokens inside user text: `<eos>` becomes `< eos>`.

    A question may quote `<end_of_turn>`; without this it would close the
    user's turn and put words into the model's mouth.
    """
    pattern = control_pattern(tokenizer, len(tokenizer), keep)
    return pattern.sub(lambda token: f"< {token[0][1:]}", text)


def disarmed(message: dict[str, str], tokenizer: Any) -> dict[str, str]:
    """The message with safe content; a model's own thought keeps its tags."""
    keep = THINK_TAGS if message["role"] == "assistant" else ()
    return {
        **message,
        "content": disarm(message["content"], tokenizer, keep=keep),
    }


def render(messages: Messages, tokenizer: Any, *, generate: bool) -> str:
    """The template's text, control tokens inside the messages disarmed."""
    if not tokenizer.chat_template:
        raise CourseError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template. "
            "Use the instruction-tuned model (-it), or pass chat_template."
        )
    safe = [disarmed(message, tokenizer) for message in messages]
    return tokenizer.apply_chat_template(
        safe, tokenize=False, add_generation_prompt=generate
    )


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
    if bos is None:
        return
    if ids[:1] != [bos] or ids.count(bos) != 1:
        raise CourseError(
            f"the prompt holds {ids.count(bos)} BOS tokens, expected one in "
            "front. Tokenize template text with add_special_tokens=False."
        )


def end_of_turn(tokenizer: Any) -> str:
    """The text that the template writes after an assistant's answer."""
    messages = student_messages("?", SENTINEL)
    text = render(messages, tokenizer, generate=False)
    return text.rsplit(SENTINEL, 1)[1].rstrip("\n")


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
    answer = disarmed(messages[-1], tokenizer)["content"]
    if prompt.endswith(THINK_OPEN):  # the template has opened the thought
        answer = answer.removeprefix(THINK_OPEN)
    head = prompt_ids(messages[:-1], tokenizer)
    tail = encode_text(answer + end_of_turn(tokenizer), tokenizer)
    if len(head) + len(tail) > max_length:
        return None
    return {"input_ids": head + tail, "labels": [-100] * len(head) + tail}


def trained_share(rows: list[dict[str, list[int]]]) -> float:
    """Share of tokens that carry a label; raises unless 0 < share < 1."""
    total = sum(len(row["labels"]) for row in rows)
    trained = sum(label != -100 for row in rows for label in row["labels"])
    share = trained / total if total else 0.0
    if not 0 < share < 1:
        raise CourseError(
            f"{share:.0%} of the tokens are trained on; expected a share "
            "between 0 and 1. Check where the labels are masked."
        )
    return share


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

    `student_vocab` and `teacher_vocab` are the widths of the logits, often
    padded to a round number. Raises CourseError when these or the tokenizers
    differ.
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
