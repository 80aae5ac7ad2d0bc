"""What was found, drawn on the planes of a picture."""
