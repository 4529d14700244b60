"""Sound: reading, preparing, encoding, and data that is generated."""
