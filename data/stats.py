"""What a folder of shards holds, in sums: over all inputs, and a line for every shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from entropy_vision.atomic import atomic_write

from .archive import markers, read_marker
from .ledger import Outcome

_SUMS = ("frames", "tokens_total", "tokens_kept")


def write_stats(out: Path, rows: Sequence[Outcome]) -> None:
    """Write `stats.json`.

    inputs, done, failed, reasons: counts; source_bytes: of what is done; bytes: of the shards; frames, tokens_total,
    tokens_kept: sums; shards: {shard, samples, bytes, frames, tokens_total, tokens_kept} of each.
    """
    done = [row for row in rows if row.status == "done"]
    shards = []
    for path in markers(out):
        marker = read_marker(path)
        sums = {name: sum(line[name] for line in marker.samples) for name in _SUMS}
        shards.append({"shard": marker.shard, "samples": len(marker.samples), "bytes": marker.bytes, **sums})
    stats = {
        "inputs": len(rows),
        "done": len(done),
        "failed": len(rows) - len(done),
        "reasons": dict(Counter(row.reason for row in rows if row.reason).most_common()),
        "source_bytes": sum(row.bytes for row in done),
        "bytes": sum(shard["bytes"] for shard in shards),
        **{name: sum(getattr(row, name) for row in done) for name in _SUMS},
        "shards": shards,
    }
    atomic_write(out / "stats.json", json.dumps(stats, indent=1) + "\n")
