"""Routing capture and counts."""
