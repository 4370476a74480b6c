"""Every call of the API as a method: the one table that Client and AsyncClient have theirs from."""

from __future__ import annotations

from nanochat_client.bound import Call, RunCall, RunsCall
from nanochat_client.operations import artefacts, files, runs, service
from nanochat_client.operations import models as answering


class RunCalls:
    """`client.runs`: called it lists; `create` and `get` are the other two ways to a run."""

    __call__ = RunsCall(runs.list_runs)
    create = RunCall(runs.create_run)
    get = RunCall(runs.get_run)


class CheckpointCalls:
    """`client.checkpoints`: called it lists. See `export` of both clients as well."""

    __call__ = Call(artefacts.list_checkpoints)
    get = Call(artefacts.get_checkpoint)
    start_export = Call(artefacts.start_export)
    exports = Call(artefacts.list_exports)
    get_export = Call(artefacts.get_export)


class FileCalls:
    """`client.files`: called it lists; `upload` is both `create` and sending the content."""

    __call__ = Call(files.list_files)
    create = Call(files.create_file)
    append = Call(files.append)
    get = Call(files.get_file)
    delete = Call(files.delete_file)


class Calls:
    create_run = RunCall(runs.create_run)
    run = RunCall(runs.get_run)
    patch_run = RunCall(runs.patch_run)
    delete_run = Call(runs.delete_run)
    cancel_run = RunCall(runs.cancel_run)
    pause_run = RunCall(runs.pause_run)
    resume_run = RunCall(runs.resume_run)
    retry_run = RunCall(runs.retry_run)
    attempts = Call(runs.attempts)
    events = Call(runs.events)
    logs = Call(runs.logs)
    metrics = Call(runs.metrics)
    samples = Call(runs.samples)
    first_batch = Call(runs.first_batch)
    run_checkpoints = Call(runs.run_checkpoints)
    report = Call(runs.report)

    create_pipeline = Call(artefacts.create_pipeline)
    pipelines = Call(artefacts.list_pipelines)
    pipeline_presets = Call(artefacts.pipeline_presets)
    pipeline = Call(artefacts.get_pipeline)
    cancel_pipeline = Call(artefacts.cancel_pipeline)
    pipeline_report = Call(artefacts.pipeline_report)
    checkpoint = Call(artefacts.get_checkpoint)
    lineage = Call(artefacts.lineage)
    promote = Call(artefacts.promote)
    evaluations = Call(artefacts.evaluations)

    stages = Call(service.stages)
    stage = Call(service.get_stage)
    configs = Call(service.configs)
    config = Call(service.get_config)
    plan = Call(service.plan)
    workers = Call(service.workers)
    system = Call(service.system)
    keys = Call(service.list_keys)
    create_key = Call(service.create_key)
    revoke_key = Call(service.revoke_key)
    create_webhook = Call(service.create_webhook)
    webhooks = Call(service.list_webhooks)
    delete_webhook = Call(service.delete_webhook)
    deliveries = Call(service.deliveries)
    ping_webhook = Call(service.ping_webhook)
    alerts = Call(service.alerts)

    models = Call(answering.models)
    model = Call(answering.get_model)
    load_model = Call(answering.load_model)
    unload_model = Call(answering.unload_model)
    tokenize = Call(answering.tokenize)
    detokenize = Call(answering.detokenize)
    chat = Call(answering.chat)
