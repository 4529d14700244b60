"""Text encoders that are not a model of transformers alone."""
