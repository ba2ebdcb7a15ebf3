"""Whole ways of work, from a specification to its outcome: what the command line and scripts call."""
