"""One trainer per stage; `run(config)` is what the script of the stage calls."""
