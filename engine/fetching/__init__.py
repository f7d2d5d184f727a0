"""Weights that are no folder yet: released models by name, zips, and models of a hub."""
