"""Optimisation: objectives, goals, the problem they make, and solvers."""
