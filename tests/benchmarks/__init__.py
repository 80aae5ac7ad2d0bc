"""What boxstream costs beside what a user would pick instead. See README.md in this folder."""
