"""Photon dose of apertures: leaves, jaws and monitor units to dose, with a pullback."""
