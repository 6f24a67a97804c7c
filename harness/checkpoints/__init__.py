"""Checkpoints on disk: expert deltas, merging them, and the proof that nothing else changed."""
