"""The planner's memory held against fake tensors, measured runs and a known figure (docs/planner.md)."""
