"""Compiling for TPU slices that are not there: what a step will need and cost."""
