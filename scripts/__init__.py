"""The verbs of the command line, one file each: a thin skin over the engine."""
