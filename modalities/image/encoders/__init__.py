"""Image and video encoders."""
