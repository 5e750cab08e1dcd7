"""How fast the World makes items, one thread: `python tools/bench_world.py [--seconds 2]` prints a Markdown table.

Each row counts whole scenes (layout, pixels, evidence, questions) in interleaved rounds. Seconds are the process's own
CPU seconds; the best round stands beside the median, because other work on the machine only ever slows a round.
"""

from __future__ import annotations

import argparse
import statistics
import time

import cv2

from entropy_vision.data.world import World

SHARED: tuple[tuple[str, int, int], ...] = (("image", 96, 1), ("image", 224, 1), ("video", 64, 8), ("video", 224, 16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds a row and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--difficulty", type=float, default=0.5)
    parser.add_argument("--family", nargs="*", default=(), help="only these rows")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    cv2.setNumThreads(1)

    # every family at 224 pixels, with as many frames as its scenes have of 16
    single = [(name, 224, World(name, frame_count=16)[0].frames.count) for name in World.families()]
    rows = [row for row in (*SHARED, *single) if not options.family or row[0] in options.family]
    worlds = [World(name, size=size, frame_count=16 if frames < 4 else frames, difficulty=options.difficulty)
              for name, size, frames in rows]  # fmt: skip
    for world in worlds:
        world.scene(0)  # the noise bank is drawn once
    rates: list[list[float]] = [[] for _ in rows]
    for number in range(options.rounds):
        for row, world in enumerate(worlds):
            rates[row].append(scenes_per_second(world, options.seconds, first=1 + number * 100_000))

    print("| family | size | frames | scenes/s, best | median | frames/s, best | CPU ms a scene |")
    print("|---|---|---|---|---|---|---|")
    for (name, size, frames), measured in zip(rows, rates, strict=True):
        best, middle = max(measured), statistics.median(measured)
        print(f"| {name} | {size} | {frames} | {best:.0f} | {middle:.0f} | {best * frames:.0f} | {1e3 / best:.2f} |")


def scenes_per_second(world: World, seconds: float, first: int) -> float:
    """Scenes made in a little more than `seconds` of CPU time, divided by the time they took."""
    start, made = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        world.scene(first + made)
        made += 1
    return made / spent


if __name__ == "__main__":
    main()
