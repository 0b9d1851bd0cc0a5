"""Tokens as a coloured strip: which of them is the student trained on?"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML

# Half-transparent backgrounds and inherited text colour: readable on a light
# and on a dark page. The underline says the same without colour.
_TRAINED = (
    "background:rgba(217,130,43,.32);color:inherit;"
    "border-bottom:3px solid #d9822b;"
)
_READ = "background:rgba(107,114,128,.14);border-bottom:3px solid transparent;"
_TOKEN = "padding:1px 2px;margin:0 1px;border-radius:3px;white-space:pre-wrap;"
_BOX = (
    "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:14px;"
    "line-height:2;overflow-wrap:anywhere;border-radius:6px;padding:10px 12px;"
    "border:1px solid rgba(107,114,128,.4);"
)
_VISIBLE = {"\n": "⏎", "\t": "⇥"}
_BYTE_LEVEL = {"Ġ": " ", "▁": " ", "Ċ": "\n"}


def token_strip_html(tokens: Sequence[str], mask: Sequence[bool]) -> HTML:
    """Colour every token by whether it is trained on, with a legend.

    tokens: as text, or as the tokenizer writes them. mask: one truth value a
    token; labels become one by `[label != -100 for label in labels]`.

    Raises:
        ValueError: tokens and mask do not have the same length.
    """
    from IPython.display import HTML

    if len(tokens) != len(mask):
        raise ValueError(
            f"there are {len(tokens)} tokens but {len(mask)} mask values: "
            f"pass one value a token, cut both at the same place."
        )
    trained = [bool(value) for value in mask]
    count, share = sum(trained), sum(trained) / max(len(trained), 1)
    strip = "".join(
        _span(token, on) for token, on in zip(tokens, trained, strict=True)
    )
    legend = (
        f'<div style="margin-bottom:6px;font-family:sans-serif">'
        f"{_span('trained on', True)} {count} of {len(trained)} tokens "
        f"({share:.1%}) &nbsp; {_span('read only', False)} the rest</div>"
    )
    return HTML(f'<div style="{_BOX}">{legend}<div>{strip}</div></div>')


def _span(token: str, trained: bool) -> str:
    for mark, meaning in _BYTE_LEVEL.items():
        token = token.replace(mark, meaning)
    breaks = "<br>" if token.endswith("\n") else ""
    for hidden, sign in _VISIBLE.items():
        token = token.replace(hidden, sign)
    tag = "mark" if trained else "span"
    style = _TOKEN + (_TRAINED if trained else _READ)
    return f'<{tag} style="{style}">{escape(token)}</{tag}>{breaks}'
