"""The GPU worker: claims attempts, launches torchrun, supervises it, ships logs and events."""
