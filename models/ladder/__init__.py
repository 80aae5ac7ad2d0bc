"""The ladder: the whole family trained on the same data with the same trunk, and compared."""
