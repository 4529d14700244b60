"""Speed of packed pictures of many sizes against padded ones."""
