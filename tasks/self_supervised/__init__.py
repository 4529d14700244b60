"""Self-supervised objectives: DINO."""
