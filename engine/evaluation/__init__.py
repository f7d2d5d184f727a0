"""What predictions are worth: scored against ground truth, shown and kept."""
