"""What made the shipped data: mini lab, benchmarks, experiments."""

from helpers.rebuild.compose import generate_problems

__all__ = ["generate_problems"]
