"""Automatic planning: from a patient with contours to a scored plan without a hand."""
