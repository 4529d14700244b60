"""Small valid files of every format that is read, their mutations, and what reads them."""
