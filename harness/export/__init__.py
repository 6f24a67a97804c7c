"""What a run found, as files for other programs."""
