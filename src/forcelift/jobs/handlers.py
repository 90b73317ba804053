"""Which handler carries out which command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from forcelift.jobs.chunk_handlers import ChunkHandlers
from forcelift.jobs.claims import ClaimHandlers
from forcelift.jobs.images import ImageHandlers
from forcelift.jobs.job_handlers import JobHandlers
from forcelift.jobs.messages import (
    AbandonJob,
    AbortJob,
    AskJob,
    CheckTable,
    ClaimChunks,
    CloseJob,
    CollectJob,
    Command,
    CreateJob,
    FailChunk,
    FindStray,
    IntendJob,
    LoadChunk,
    LookAround,
    PollJobs,
    SettleChunk,
    SkipChunks,
    StageResend,
    TakeImage,
    UploadJob,
)
from forcelift.jobs.world import JobWorld

Handlers = Mapping[type, Callable[[Any], Any]]


def job_handlers(world: JobWorld) -> dict[type, Callable[[Any], Any]]:
    """Handlers of all commands but planning and staging, which belong to the extraction."""
    jobs, chunks, claims = JobHandlers(world), ChunkHandlers(world), ClaimHandlers(world)
    return {
        TakeImage: ImageHandlers(world).take,
        IntendJob: jobs.intend,
        CreateJob: jobs.create,
        FindStray: jobs.find_stray,
        UploadJob: jobs.upload,
        CloseJob: jobs.close,
        AskJob: jobs.ask,
        AbandonJob: jobs.abandon,
        AbortJob: jobs.abort,
        PollJobs: jobs.poll,
        CollectJob: jobs.collect,
        StageResend: chunks.stage_resend,
        LoadChunk: chunks.load_chunk,
        SettleChunk: chunks.settle,
        FailChunk: chunks.fail,
        SkipChunks: chunks.skip,
        CheckTable: chunks.check_table,
        ClaimChunks: claims.claim,
        LookAround: claims.look_around,
    }


def dispatch(handlers: Handlers, command: Command) -> Any:
    """Run the handler of a command."""
    return handlers[type(command)](command)
