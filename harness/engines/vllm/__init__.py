"""vLLM: what is special about letting it answer."""
