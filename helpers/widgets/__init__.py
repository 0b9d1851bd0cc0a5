"""The sliders, by notebook theme."""
