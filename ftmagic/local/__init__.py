"""The embedded engine: an OpenAI-dialect server with real training, its own process."""
