"""`python -m nanochat.stages`: the stage table, a newcomer's first look."""

from nanochat.stages import STAGES


def main() -> None:
    for stage in STAGES.values():
        needs = ", ".join(f"{i.field} (from {' or '.join(i.stages)})" for i in stage.inputs) or "nothing"
        print(f"{stage.name:10} {stage.title:24} {stage.script:20} needs {needs}")


if __name__ == "__main__":
    main()
