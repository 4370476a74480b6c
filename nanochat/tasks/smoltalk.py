"""Task `smoltalk`: real conversations to train on (smol-smoltalk, 460,000). They are not judged."""

from __future__ import annotations

from typing import ClassVar

from nanochat.tasks.conversations import messages
from nanochat.tasks.datasets import Dataset, DatasetTask, Row, Splits
from nanochat.tasks.task import Example

REPOSITORY = "HuggingFaceTB/smol-smoltalk"


def _conversation(row: Row) -> Row:
    return {"messages": [{"role": one["role"], "content": one["content"]} for one in row["messages"]]}


class SmolTalk(DatasetTask):
    """Rows: {"messages"}. The test split measures the loss while training."""

    name = "smoltalk"
    title = "conversations on everything"
    judges = False
    splits: ClassVar[Splits] = {
        "train": Dataset(
            "smoltalk", "SmolTalk (small), train", (REPOSITORY, "data/train-*.parquet"), _conversation,
            "Apache-2.0",
        ),
        "test": Dataset(
            "smoltalk-test", "SmolTalk (small), test", (REPOSITORY, "data/test-*.parquet"), _conversation,
            "Apache-2.0",
        ),
    }  # fmt: skip

    def example(self, number: int, row: Row) -> Example:
        return Example(messages(row, f"{self.splits[self.split].name}, row {number}"))

    def evaluate(self, example: Example, text: str) -> bool:
        raise NotImplementedError("smoltalk: conversations have no right answer")

    def key(self, row: Row) -> str:
        """The whole conversation's first question."""
        return " ".join(str(row["messages"][0].get("content", "")).lower().split())


TASKS = (SmolTalk,)
