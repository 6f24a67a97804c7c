"""Interventions: each turns a model into a variant."""
