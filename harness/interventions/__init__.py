"""What turns a model into a variant."""
