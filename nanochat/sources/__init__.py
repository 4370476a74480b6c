"""Where text comes from: one module a source, each turns something into parquet shards."""
