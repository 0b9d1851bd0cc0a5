"""The sliders, by notebook theme; each is imported when it is asked for."""

from importlib import import_module
from typing import Any

_HOME = {
    "TemperatureExplorer": "theory",
    "DivergenceExplorer": "theory",
    "LayerMapExplorer": "features",
    "PlannerExplorer": "memory",
    "TrainingSlider": "training",
    "token_strip_html": "token_strip",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"helpers.widgets has no {name!r}")
    return getattr(import_module(f"helpers.widgets.{_HOME[name]}"), name)
