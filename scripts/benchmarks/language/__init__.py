"""Speed and memory of learning from text."""
