"""The photon pencil-beam engine, stored and on the fly."""
