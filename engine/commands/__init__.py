"""The pages of ``md-train`` and ``md-eval``."""
