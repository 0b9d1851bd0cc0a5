"""Exercises: `check`, `chosen`, `progress`, and those of each notebook."""

from helpers.exercises.check import check, chosen, progress  # noqa: F401
