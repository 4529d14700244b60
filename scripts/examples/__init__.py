"""Examples that run unchanged."""
