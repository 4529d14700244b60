"""Actions and states: reading, tokens, encoders, and a simulator's demonstrations."""
