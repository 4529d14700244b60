"""Meta-World: environments, rendering, experts and demonstrations."""
