"""What became of every frame, and how it is told: counts, the report, the summary."""
