"""The particle pencil-beam engine: protons, helium and carbon."""
