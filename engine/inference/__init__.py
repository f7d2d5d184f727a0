"""Depth and pose networks as evaluation, prediction and export load them from a folder of weights."""
