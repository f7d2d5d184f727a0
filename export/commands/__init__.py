"""The pages of ``md-export`` and ``md-predict``."""
