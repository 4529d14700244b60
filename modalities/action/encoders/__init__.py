"""Encoders of states and trajectories."""
