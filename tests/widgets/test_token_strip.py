"""The coloured strip of tokens in notebook 03."""

from __future__ import annotations

import pytest

from helpers.widgets.token_strip import token_strip_html


def test_token_strip_marks_what_is_trained() -> None:
    strip = token_strip_html(["<bos>", " six", "\n", "ty"], [0, 1, 0, 1]).data
    assert strip.count("<mark ") == 3  # two tokens and the legend
    assert "2 of 4 tokens (50.0%)" in strip
    assert "&lt;bos&gt;" in strip and "<bos>" not in strip
    assert "⏎</span><br>" in strip
    assert "color:inherit" in strip  # <mark> would force black on yellow


def test_token_strip_uneven_input() -> None:
    with pytest.raises(ValueError):
        token_strip_html(["a", "b", "c"], [1, 0])
