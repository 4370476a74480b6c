"""The report: what every stage did, and one table of what the models can do, BASE | MID | SFT | RL.

Each stage that succeeds writes `report/<name>.md` (and the same as JSON) below the base directory;
`python -m nanochat.report` puts them together. The service builds the same report of one chain of runs
out of its database. Needs the standard library and pydantic only.
"""

from nanochat.report.scores import Cell, Row, Score, table, table_markdown
from nanochat.report.section import Section, report_markdown

__all__ = ["Cell", "Row", "Score", "Section", "report_markdown", "table", "table_markdown"]
