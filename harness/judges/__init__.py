"""Judges read answers: refusal, compliance, or unscored with a reason."""
