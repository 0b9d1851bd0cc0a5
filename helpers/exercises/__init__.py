"""Exercises: `check`, `progress`, and the cases of each notebook."""

from helpers.exercises.check import check, progress  # noqa: F401
