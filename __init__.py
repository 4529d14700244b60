"""Sensorium: any encoder, any language decoder, one recipe."""

__version__ = "0.1.0.dev0"
