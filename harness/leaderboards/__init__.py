"""Leaderboards over many runs."""
