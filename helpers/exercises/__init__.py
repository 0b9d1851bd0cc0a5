"""Exercises: `check`, `progress`, and the cases of each notebook."""

from helpers.exercises.check import check as check
from helpers.exercises.check import progress as progress
