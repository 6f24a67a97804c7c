"""Engines let a model answer prompts."""
