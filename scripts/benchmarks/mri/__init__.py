"""The benchmark of volumes."""
