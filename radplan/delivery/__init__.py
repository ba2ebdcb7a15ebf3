"""Delivery: what a linac is told, from optimised variables to apertures and spots it can give."""
