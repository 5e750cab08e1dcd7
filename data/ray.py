"""preprocess on a Ray cluster: one Ray task a rank, each of which makes the same call as any other process would.

    pip install 'entropy-vision[ray]'
    entropy-vision preprocess videos --out /shared/shards --ray auto

Nothing of the work is Ray's: it places ranks on nodes and starts those anew whose node was lost. They go on where they
were, because the folder says what is done. Inputs and `out` must be there for every node: a shared file system, or a
store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entropy_vision.errors import EntropyVisionError, UsageError

_COUNTS = ("inputs", "written", "resumed", "failed", "tokens_total", "tokens_kept")


def preprocess_on_ray(
    sources: Sequence[str | Path], out: str | Path, *, address: str = "auto", world: int | None = None, **options: Any
) -> dict[str, Any]:
    """`preprocess.preprocess` on as many ranks as the cluster has cores for; its arguments and its result.

    Args:
        address: of the cluster: "local" starts one on this machine, "auto" finds the one it is part of, else
            ray://host:port.
        world: how many ranks; each takes `workers` cores.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
        TooManyBad: more failed than max_bad allows, over all ranks.
    """
    from .preprocess import judge, preprocess

    if options.get("dry_run"):
        return preprocess(sources, out, **options)
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ImportError:
        raise UsageError("Ray is not installed: pip install 'entropy-vision[ray]'") from None
    workers = int(options.get("workers", 1))
    began_here = not ray.is_initialized()
    if began_here:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except ConnectionError as error:
            raise UsageError(f"no Ray cluster at {address} ({error}): ray start --head begins one") from None
    try:
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores < workers:
            raise UsageError(f"the Ray cluster has {cores} cores: --workers {workers} would wait for ever")
        world = world or cores // workers
        named, out = [_absolute(one) for one in sources], _absolute(out)
        max_bad = options.pop("max_bad", 0.05)
        task = ray.remote(num_cpus=workers, max_retries=3)(_rank)
        results = ray.get([task.remote(named, out, rank, world, options) for rank in range(world)])
    except RayTaskError as error:
        if isinstance(error.cause, EntropyVisionError):
            raise error.cause from None
        raise
    finally:
        if began_here:
            ray.shutdown()
    result = {name: sum(one[name] for one in results) for name in _COUNTS}
    reasons: Counter[str] = sum((Counter(one["reasons"]) for one in results), Counter())
    result |= {"shards": max(one["shards"] for one in results), "seconds": max(one["seconds"] for one in results)}
    result |= {"reasons": dict(reasons.most_common()), "out": out}
    judge(result, max_bad, out)
    return result


def _rank(sources: list[str], out: str, rank: int, world: int, options: dict[str, Any]) -> dict[str, Any]:
    from .preprocess import preprocess

    return preprocess(sources, out, rank=rank, world=world, max_bad=1e9, **options)


def _absolute(named: str | Path) -> str:
    """A name that means the same wherever a task runs."""
    return str(named) if "://" in str(named) else str(Path(named).absolute())
