"""Judges that are checkpoints run here: one file per form, and what loads and asks them."""
