"""Models tried on labelled pictures, and what they are worth."""
