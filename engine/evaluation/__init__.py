"""Evaluation of depth: predictions scored against ground truth, shown and kept."""
