"""The settings of a run, read from a file and the command line, and shown again."""
