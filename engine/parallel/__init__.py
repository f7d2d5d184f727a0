"""Processes that train or evaluate together, one per GPU, as torchrun starts them."""
