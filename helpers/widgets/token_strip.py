"""Tokens as a coloured strip: which of them is the student trained on?"""

from collections.abc import Sequence
from html import escape

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


def token_strip_html(tokens: Sequence[str], mask: Sequence[bool]) -> HTML:
    """Colour every token by whether it is trained on, with a legend.

    tokens: as text. mask: one truth value a token; labels become one by
    `[label != -100 for label in labels]`. Raises ValueError where there are
    not as many of the one as of the other.
    """
    pairs = zip(tokens, mask, strict=True)
    strip = "".join(_span(token, trained) for token, trained in pairs)
    count, share = sum(mask), sum(mask) / max(len(mask), 1)
    legend = (
        f'<div style="margin-bottom:6px;font-family:sans-serif">'
        f"{_span('trained on', True)} {count} of {len(mask)} tokens "
        f"({share:.1%}) &nbsp; {_span('read only', False)} the rest</div>"
    )
    return HTML(f'<div style="{_BOX}">{legend}<div>{strip}</div></div>')


def _span(token: str, trained: bool) -> str:
    """One token in its colours; line breaks and tabs are shown as signs."""
    tag, style = ("mark", _TRAINED) if trained else ("span", _READ)
    text = escape(token.replace("\n", "⏎").replace("\t", "⇥"))
    breaks = "<br>" if token.endswith("\n") else ""
    return f'<{tag} style="{_TOKEN}{style}">{text}</{tag}>{breaks}'
