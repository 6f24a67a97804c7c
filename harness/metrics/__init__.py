"""Rates, intervals and paired tests: pure functions on labels, counts and scores."""
