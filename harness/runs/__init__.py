"""The run folder: files that appear whole, stages, fingerprints and the summary."""
