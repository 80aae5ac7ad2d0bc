"""Labelled pictures, read from their files and made into batches to learn from."""
