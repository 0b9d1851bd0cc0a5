"""helpers.chat under the real Qwen3 and Gemma 3 templates, as TRL ships them.

The mini tokenizers stand in for the real ones: they hold the same control
tokens, and a template writes text, whoever tokenizes it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import trl

from helpers import chat

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
THOUGHT = "<think>\n6 + 6 = 12.\n</think>\n\nThe answer is 12."


def real(template: str, mini: str):
    """A mini tokenizer that speaks through a real template."""
    tokenizer = tiny.AutoTokenizer.from_pretrained(tiny.folder(mini))
    path = TEMPLATES / f"{template}.jinja"
    tokenizer.chat_template = path.read_text(encoding="utf-8")
    return tokenizer


@pytest.mark.parametrize(
    ("template", "mini"), [("gemma3", tiny.STUDENT), ("qwen3", tiny.TEACHER)]
)
def test_prompt_and_training_row_equal_the_real_template(template, mini):
    """Up to the newline that a template writes after the last turn."""
    tokenizer = real(template, mini)
    messages = chat.student_messages("Mia has 12 pens. How many?", THOUGHT)
    options = {"tokenize": True, "return_dict": False}
    whole = tokenizer.apply_chat_template(messages, **options)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], add_generation_prompt=True, **options
    )
    assert chat.prompt_ids(messages[:-1], tokenizer) == prompt
    row = chat.encode_example(messages, tokenizer, max_length=500)
    newline = chat.encode_text("\n", tokenizer)
    assert row["input_ids"] + newline == whole
    end = chat.encode_text(chat.end_of_turn(tokenizer), tokenizer)
    assert row["labels"][-1:] == end  # where to stop is trained, once
    ours = tiny.tokenizer(mini).apply_chat_template(messages, **options)
    assert ours == whole  # the mini template, where it opens no thought


def test_trap_gemma_has_no_system_role():
    tokenizer = real("gemma3", tiny.STUDENT)
    messages = [{"role": "system", "content": "Be brief."}]
    messages += chat.student_messages("How many?")
    text = chat.render(messages, tokenizer, generate=True)
    assert "system" not in text
    assert "user\nBe brief.\n\nQuestion: How many?" in text


def test_trap_a_thought_that_the_prompt_opened_is_not_doubled():
    """Thinking-2507's template ends in `<think>`, Qwen3's own does not."""
    tokenizer = real("qwen3", tiny.TEACHER)
    template = tokenizer.chat_template
    messages = chat.student_messages("How many?", THOUGHT)
    plain = chat.encode_example(messages, tokenizer, max_length=500)
    opening = "{{- '<|im_start|>assistant\\n' }}"
    assert template.count(opening) == 1
    tokenizer.chat_template = template.replace(
        opening, "{{- '<|im_start|>assistant\\n<think>\\n' }}"
    )
    opened = chat.encode_example(messages, tokenizer, max_length=500)
    assert opened["input_ids"] == plain["input_ids"]
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert opened["input_ids"].count(think) == 1
    assert think in plain["labels"] and think not in opened["labels"]
