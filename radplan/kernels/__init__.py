"""Compiled CPU kernels (numba), each behind a function that stands on its own test."""
