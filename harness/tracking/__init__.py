"""Trackers: other programs that a run tells what it does while it does it."""
