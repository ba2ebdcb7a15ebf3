"""Commissioning: machines brought to measured or stated output."""
