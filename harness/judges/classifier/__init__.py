"""Judges that are classifiers or guard models, run with transformers."""
