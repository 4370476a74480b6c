"""The training pipeline: stages, tokenizer, data, model, trainers, evaluations, generation engine.

Importing any module here does nothing: no device is chosen, no argument read, no logger set up.
`stages`, `configurator`, `events`, `paths` and `schedule` need the standard library and pydantic
only, so that the control plane and the worker can use them without torch.
"""
