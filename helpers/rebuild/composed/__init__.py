"""The mini lab: its problems, its texts, and how its models are made."""

from helpers.rebuild.composed.compose import generate_problems

__all__ = ["generate_problems"]
