"""Prompt tasks: what they are, where their rows come from, and how they are split."""
