"""What all sliders of the course have in common."""

from html import escape

import ipywidgets
from IPython.display import Image

from helpers import CourseError
from helpers.plots.style import SIZE, to_png


class Explorer:
    """Controls, a line of HTML, and a picture that follows them.

    A subclass makes its controls and hands them to `watch`. Its `words()`
    give the line, its `paint(figure)` fills an empty figure; a CourseError
    there takes their place. size: of the picture, in inches of 100 pixels.
    """

    def __init__(self, size: tuple[float, float] = SIZE) -> None:
        self.size = size
        self.status = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", width=int(100 * size[0]))

    def watch(self, *controls: ipywidgets.Widget) -> None:
        """Draw now, and whenever one of these changes."""
        self.controls = controls
        for control in controls:
            control.observe(lambda _: self.draw(), names="value")
        self.draw()

    def draw(self) -> None:
        """Words and picture of the present settings, or why there are none."""
        try:
            self.status.value = self.words()
            self.picture.value = to_png(self.paint, size=self.size)
        except CourseError as error:
            self.status.value = escape(str(error))
            self.picture.value = b""

    def show(self) -> ipywidgets.VBox:
        """The widget, to be the last value of a cell."""
        row = ipywidgets.Box(self.controls, layout={"flex_flow": "row wrap"})
        return ipywidgets.VBox([row, self.status, self.picture])

    def still(self) -> Image:
        """The picture as it is now, for readers without a kernel."""
        png = bytes(self.picture.value)
        return Image(data=png, width=int(self.picture.width))
