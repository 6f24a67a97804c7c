"""How a run is shown: conclusion, terminal, Markdown, HTML. Reads run folders only, never a model."""
