"""Dose-volume histograms and the plan metrics read off them, on weighted voxels."""
