"""The judge `llm`: a rubric put to a language model behind any OpenAI-compatible endpoint."""
