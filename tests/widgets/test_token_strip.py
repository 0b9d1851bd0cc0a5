"""The coloured strip of tokens in notebook 03."""

from __future__ import annotations

import pytest

from helpers.widgets import token_strip_html


def test_token_strip_marks_what_is_trained() -> None:
    strip = token_strip_html(["<bos>", "Ġsix", "ty"], [0, 1, 1]).data
    assert strip.count("<mark ") == 3  # two tokens and the legend
    assert "2 of 3 tokens (66.7%)" in strip
    assert "&lt;bos&gt;" in strip and "<bos>" not in strip
    assert "> six</mark>" in strip and "Ġ" not in strip


def test_token_strip_shows_line_breaks() -> None:
    strip = token_strip_html(["a", "Ċ", "\n\n"], [1, 0, 0]).data
    assert "⏎</span><br>" in strip and "⏎⏎</span><br>" in strip


def test_token_strip_readable_on_dark_and_light() -> None:
    strip = token_strip_html(["a", "b"], [1, 0]).data
    assert "color:inherit" in strip  # <mark> would force black on yellow
    assert "rgba(" in strip and "http" not in strip


def test_token_strip_of_nothing_and_of_uneven_input() -> None:
    assert "0 of 0 tokens" in token_strip_html([], []).data
    with pytest.raises(ValueError, match="3 tokens but 2"):
        token_strip_html(["a", "b", "c"], [1, 0])
