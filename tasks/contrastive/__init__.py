"""Contrastive alignment, its losses and metrics, and embedding distillation."""
