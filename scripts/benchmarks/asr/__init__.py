"""The benchmark of speech recognition."""
