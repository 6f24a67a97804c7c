"""What a variant can still do: lm-eval on the model in memory."""
