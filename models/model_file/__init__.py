"""The model file: how a network becomes one, and how it is read again."""
