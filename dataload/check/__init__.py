"""``md-data check``: whether a dataset is fit to be trained on, one question per module."""
