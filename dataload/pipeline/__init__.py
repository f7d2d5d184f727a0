"""From an order of samples to batches: plans, decoders, and the graphs that augment, by DALI and without."""
