"""Figures that the README quotes, printed by ``python -m benchmarks``."""
