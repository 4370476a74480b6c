"""SDK and command line of the nanochat training service."""
