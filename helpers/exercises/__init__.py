"""Exercises: `check`, `chosen`, `progress`, and each notebook's cases."""

from helpers.exercises.check import check, chosen, progress  # noqa: F401
