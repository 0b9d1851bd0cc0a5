"""Exercises: `check` and `progress`, and the cases of each notebook."""

from helpers.exercises.check import check, progress

__all__ = ["check", "progress"]
