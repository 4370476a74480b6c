"""The control plane: API, database, reconcile loop, live streams, OpenAI surface. Never imports torch."""
