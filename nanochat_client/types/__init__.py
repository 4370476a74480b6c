"""What travels over the wire: requests and answers of the API, shared by server, worker, SDK and CLI.

Times are RFC 3339 in UTC, durations are seconds (`_s`), sizes are bytes. A file for each topic; all names are
here as well.
"""

from __future__ import annotations

from nanochat_client.types.checkpoints import Artefact, Checkpoint, Lineage, LineageStep, Promotion
from nanochat_client.types.evaluations import Evaluation, Report, ReportCell, ReportRow
from nanochat_client.types.hosts import Gpu, GpuProcess, GpuStats, HostStats, System, Worker
from nanochat_client.types.internal import (
    Acked,
    Beat,
    BeatAnswer,
    Claim,
    ClaimRequest,
    Earlier,
    Finish,
    Finished,
    WorkerBeat,
    WorkerRegister,
    WorkerRegistered,
)
from nanochat_client.types.pipelines import Pipeline, PipelineCreate, PipelineStep
from nanochat_client.types.plans import FitView, MemoryView, Plan, PlanCreate
from nanochat_client.types.problems import ProblemDocument, ProblemItem
from nanochat_client.types.runs import Attempt, Blocked, Desired, Reason, Run, RunCreate, RunPatch, RunState
from nanochat_client.types.stages import ConfigView, StageView
from nanochat_client.types.telemetry import Event, LogChunk, LogPage, Metrics, Sample, Series
from nanochat_client.types.wire import Name, Page, Request, Wire

__all__ = [
    "Acked", "Artefact", "Attempt", "Beat", "BeatAnswer", "Blocked", "Checkpoint", "Claim",
    "ClaimRequest", "ConfigView", "Desired", "Earlier", "Evaluation", "Event", "Finish", "Finished",
    "FitView", "Gpu", "GpuProcess", "GpuStats", "HostStats", "Lineage", "LineageStep", "LogChunk",
    "LogPage", "MemoryView", "Metrics", "Name", "Page", "Pipeline", "PipelineCreate", "PipelineStep",
    "Plan", "PlanCreate", "ProblemDocument", "ProblemItem", "Promotion", "Reason", "Report", "ReportCell",
    "ReportRow", "Request", "Run", "RunCreate", "RunPatch", "RunState", "Sample", "Series", "StageView",
    "System", "Wire", "Worker", "WorkerBeat", "WorkerRegister", "WorkerRegistered",
]  # fmt: skip
