"""Every figure of the course, in one look.

Blue is always the teacher, orange the student, grey the reference and teal
the thing to notice; no figure says anything by colour alone. The title
states the finding. Each function draws, shows and closes a figure of its
own, or draws into the axes that it is given as `ax`; `canvas` yields several
side by side.
"""

# ruff: noqa: F401
from helpers.plots.accuracy import (
    accuracy_against,
    accuracy_bars,
    learning_curve,
    length_histogram,
    nf4_error_plot,
    token_strip_html,
)
from helpers.plots.features import (
    curves,
    layer_grid,
    layer_grids,
    norms_by_layer,
)
from helpers.plots.logits import (
    accuracy_against_budget,
    covered_mass,
    fitted_targets,
    loss_curves,
)
from helpers.plots.memory import CARD_SIZES, measured_chart, plans_chart
from helpers.plots.style import (
    ACCENT,
    REFERENCE,
    STUDENT,
    TEACHER,
    canvas,
    colour_of,
    figure,
)
from helpers.plots.theory import (
    gradient_plot,
    next_token_plot,
    two_peaks_plot,
    width_plot,
)
