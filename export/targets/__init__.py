"""What md-export makes: one module per target, and a line for it in TARGETS."""
