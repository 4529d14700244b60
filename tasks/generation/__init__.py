"""Generation: signals from the features of others."""
