"""What the sliders of notebooks 01, 06 and 10 have in common."""

from __future__ import annotations

import ipywidgets
from IPython.display import Image


class Explorer:
    """Controls, a line of numbers, and a picture that follows them.

    A subclass makes its controls, hands them to `watch`, and fills `status`
    and `picture` in `draw`. width: of the picture, in pixels.
    """

    def __init__(self, *, width: int) -> None:
        self.status = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", width=width)
        self.controls: tuple[ipywidgets.Widget, ...] = ()

    def watch(self, *controls: ipywidgets.Widget) -> None:
        """Draw now, and whenever one of these changes."""
        self.controls = controls
        for control in controls:
            control.observe(lambda _: self.draw(), names="value")
        self.draw()

    def show(self) -> ipywidgets.VBox:
        """The widget, to be the last value of a cell."""
        row = ipywidgets.Box(self.controls, layout={"flex_flow": "row wrap"})
        return ipywidgets.VBox([row, self.status, self.picture])

    def still(self) -> Image:
        """The picture as it is now, for readers without a kernel."""
        width = int(self.picture.width)
        return Image(data=bytes(self.picture.value), format="png", width=width)
