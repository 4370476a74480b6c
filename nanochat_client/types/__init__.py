"""What travels over the wire: requests and answers of the API, shared by server, worker, SDK and CLI.

Times are RFC 3339 in UTC, durations are seconds (`_s`), sizes are bytes. A file for each topic; all names are
here as well, and a topic is loaded when a name of it is first asked for: models take a while to make.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanochat_client.types.alerts import Alert as Alert
    from nanochat_client.types.alerts import AlertKind as AlertKind
    from nanochat_client.types.checkpoints import Artefact as Artefact
    from nanochat_client.types.checkpoints import Checkpoint as Checkpoint
    from nanochat_client.types.checkpoints import Export as Export
    from nanochat_client.types.checkpoints import ExportCreate as ExportCreate
    from nanochat_client.types.checkpoints import Lineage as Lineage
    from nanochat_client.types.checkpoints import LineageStep as LineageStep
    from nanochat_client.types.checkpoints import Promotion as Promotion
    from nanochat_client.types.evaluations import Evaluation as Evaluation
    from nanochat_client.types.evaluations import Report as Report
    from nanochat_client.types.evaluations import ReportCell as ReportCell
    from nanochat_client.types.evaluations import ReportRow as ReportRow
    from nanochat_client.types.files import File as File
    from nanochat_client.types.files import FileCreate as FileCreate
    from nanochat_client.types.files import FileKind as FileKind
    from nanochat_client.types.files import FileState as FileState
    from nanochat_client.types.gangs import Gathered as Gathered
    from nanochat_client.types.gangs import Gathering as Gathering
    from nanochat_client.types.gangs import MemberState as MemberState
    from nanochat_client.types.hosts import Gpu as Gpu
    from nanochat_client.types.hosts import GpuProcess as GpuProcess
    from nanochat_client.types.hosts import GpuStats as GpuStats
    from nanochat_client.types.hosts import HostStats as HostStats
    from nanochat_client.types.hosts import System as System
    from nanochat_client.types.hosts import Worker as Worker
    from nanochat_client.types.internal import Acked as Acked
    from nanochat_client.types.internal import Beat as Beat
    from nanochat_client.types.internal import BeatAnswer as BeatAnswer
    from nanochat_client.types.internal import Claim as Claim
    from nanochat_client.types.internal import ClaimRequest as ClaimRequest
    from nanochat_client.types.internal import Earlier as Earlier
    from nanochat_client.types.internal import Finish as Finish
    from nanochat_client.types.internal import Finished as Finished
    from nanochat_client.types.internal import WorkerBeat as WorkerBeat
    from nanochat_client.types.internal import WorkerRegister as WorkerRegister
    from nanochat_client.types.internal import WorkerRegistered as WorkerRegistered
    from nanochat_client.types.keys import Key as Key
    from nanochat_client.types.keys import KeyCreate as KeyCreate
    from nanochat_client.types.keys import KeyCreated as KeyCreated
    from nanochat_client.types.keys import Login as Login
    from nanochat_client.types.keys import Scope as Scope
    from nanochat_client.types.keys import Session as Session
    from nanochat_client.types.pipelines import Pipeline as Pipeline
    from nanochat_client.types.pipelines import PipelineCreate as PipelineCreate
    from nanochat_client.types.pipelines import PipelinePreset as PipelinePreset
    from nanochat_client.types.pipelines import PipelineStep as PipelineStep
    from nanochat_client.types.plans import FitView as FitView
    from nanochat_client.types.plans import MemoryView as MemoryView
    from nanochat_client.types.plans import Plan as Plan
    from nanochat_client.types.plans import PlanCreate as PlanCreate
    from nanochat_client.types.plans import RolloutsView as RolloutsView
    from nanochat_client.types.problems import ProblemDocument as ProblemDocument
    from nanochat_client.types.problems import ProblemItem as ProblemItem
    from nanochat_client.types.runs import Attempt as Attempt
    from nanochat_client.types.runs import Blocked as Blocked
    from nanochat_client.types.runs import Desired as Desired
    from nanochat_client.types.runs import Reason as Reason
    from nanochat_client.types.runs import Run as Run
    from nanochat_client.types.runs import RunCreate as RunCreate
    from nanochat_client.types.runs import RunPatch as RunPatch
    from nanochat_client.types.runs import RunState as RunState
    from nanochat_client.types.stages import ConfigView as ConfigView
    from nanochat_client.types.stages import StageView as StageView
    from nanochat_client.types.telemetry import BatchRow as BatchRow
    from nanochat_client.types.telemetry import BatchToken as BatchToken
    from nanochat_client.types.telemetry import Event as Event
    from nanochat_client.types.telemetry import FirstBatch as FirstBatch
    from nanochat_client.types.telemetry import LogChunk as LogChunk
    from nanochat_client.types.telemetry import LogPage as LogPage
    from nanochat_client.types.telemetry import Metrics as Metrics
    from nanochat_client.types.telemetry import Sample as Sample
    from nanochat_client.types.telemetry import Series as Series
    from nanochat_client.types.webhooks import Delivery as Delivery
    from nanochat_client.types.webhooks import Notice as Notice
    from nanochat_client.types.webhooks import Webhook as Webhook
    from nanochat_client.types.webhooks import WebhookCreate as WebhookCreate
    from nanochat_client.types.webhooks import WebhookCreated as WebhookCreated
    from nanochat_client.types.wire import Name as Name
    from nanochat_client.types.wire import Page as Page
    from nanochat_client.types.wire import Request as Request
    from nanochat_client.types.wire import Wire as Wire

_TOPICS = {
    "alerts": "Alert AlertKind",
    "checkpoints": "Artefact Checkpoint Export ExportCreate Lineage LineageStep Promotion",
    "evaluations": "Evaluation Report ReportCell ReportRow",
    "files": "File FileCreate FileKind FileState",
    "gangs": "Gathered Gathering MemberState",
    "hosts": "Gpu GpuProcess GpuStats HostStats System Worker",
    "internal": (
        "Acked Beat BeatAnswer Claim ClaimRequest Earlier Finish Finished WorkerBeat "
        "WorkerRegister WorkerRegistered"
    ),
    "keys": "Key KeyCreate KeyCreated Login Scope Session",
    "pipelines": "Pipeline PipelineCreate PipelinePreset PipelineStep",
    "plans": "FitView MemoryView Plan PlanCreate RolloutsView",
    "problems": "ProblemDocument ProblemItem",
    "runs": "Attempt Blocked Desired Reason Run RunCreate RunPatch RunState",
    "stages": "ConfigView StageView",
    "telemetry": "BatchRow BatchToken Event FirstBatch LogChunk LogPage Metrics Sample Series",
    "webhooks": "Delivery Notice Webhook WebhookCreate WebhookCreated",
    "wire": "Name Page Request Wire",
}
_TOPIC_OF = {name: topic for topic, names in _TOPICS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _TOPIC_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_TOPIC_OF[name]}"), name)
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return sorted(_TOPIC_OF)
