"""The targets of md-export: one module per target, and a line for it in TARGETS."""
