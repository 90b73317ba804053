"""Which moves of STATUS and of a batch's state are allowed: DESIGN section 4, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from forcelift.audit.records import BatchState, ChunkStatus, IllegalMove

CHUNK_MOVES: Mapping[ChunkStatus, frozenset[ChunkStatus]] = {
    ChunkStatus.PENDING: frozenset({ChunkStatus.RUNNING, ChunkStatus.SKIPPED}),
    ChunkStatus.RUNNING: frozenset({ChunkStatus.SUCCESS, ChunkStatus.PARTIAL, ChunkStatus.FAILED}),
    ChunkStatus.FAILED: frozenset({ChunkStatus.RUNNING}),
    ChunkStatus.SKIPPED: frozenset({ChunkStatus.RUNNING}),
    ChunkStatus.PARTIAL: frozenset({ChunkStatus.RUNNING, ChunkStatus.ROLLED_BACK}),
    ChunkStatus.SUCCESS: frozenset({ChunkStatus.ROLLED_BACK}),
    ChunkStatus.ROLLED_BACK: frozenset(),
}

BATCH_MOVES: Mapping[BatchState, frozenset[BatchState]] = {
    BatchState.RUNNING: frozenset({BatchState.RUNNING, BatchState.STOPPED, BatchState.FAILED, BatchState.DONE}),
    BatchState.STOPPED: frozenset({BatchState.RUNNING}),
    BatchState.FAILED: frozenset({BatchState.RUNNING}),
    # A batch that is done opens again for a retry of the rows that were refused.
    BatchState.DONE: frozenset({BatchState.RUNNING}),
}


def check_chunk_move(audit_id: int, old: ChunkStatus, new: ChunkStatus) -> None:
    """Raise `IllegalMove` unless a chunk may go from `old` to `new`."""
    if new not in CHUNK_MOVES[old]:
        raise IllegalMove(f"chunk with AUDIT_ID {audit_id}: STATUS may not go from {old} to {new}")


def check_batch_move(batch_id: str, old: BatchState, new: BatchState) -> None:
    """Raise `IllegalMove` unless a batch may go from `old` to `new`."""
    if new not in BATCH_MOVES[old]:
        raise IllegalMove(f"batch `{batch_id}`: its state may not go from {old} to {new}")
