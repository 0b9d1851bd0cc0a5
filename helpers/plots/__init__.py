"""Every figure of the course.

Blue is always the teacher, orange the student, grey the reference and teal
the thing to notice; no figure says anything by colour alone. The title
states the finding. Each function draws, shows and closes a figure of its
own, or draws into the axes that it is given as `ax`; `canvas` yields several
side by side.
"""

# ruff: noqa: F401
from helpers.plots.accuracy import accuracy_bars
from helpers.plots.lines import line_chart
from helpers.plots.style import canvas, figure
from helpers.plots.theory import (
    gradient_plot,
    next_token_plot,
    two_peaks_plot,
)
