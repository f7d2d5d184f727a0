"""Ego-motion: trajectories of a sequence, and their errors."""
