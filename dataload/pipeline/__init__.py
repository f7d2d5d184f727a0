"""From an order of samples to batches: plans, decoders, by DALI and by torch, and the graphs that augment."""
