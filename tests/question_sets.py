"""Question files of a user, drawn small: pictures and videos of one colour each, two questions about every one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from media import write
from PIL import Image
from small_runs import small_recipe

from entropy_vision import Frames
from entropy_vision.rl.recipe import BudgetRecipe, DataRecipe, EvalRecipe, TrainRecipe

COLORS = {"red": (200, 40, 40), "blue": (40, 40, 200), "green": (40, 180, 40), "grey": (120, 120, 120)}


def pixels(color: str, seed: int, frames: int = 1, side: int = 64) -> np.ndarray:
    """uint8 [F, side, side, 3]: noise around a colour."""
    noise = np.random.default_rng(seed).normal(0, 25, (frames, side, side, 3))
    return (np.array(COLORS[color]) + noise).clip(0, 255).astype(np.uint8)


def color_of(number: int) -> str:
    """What colour scene `number` has."""
    return list(COLORS)[number * 7 % 4]


def turns(kind: str, name: str, color: str, number: int, **more: str) -> dict[str, Any]:
    """One record in LLaVA's form: what colour, and whether it is red."""
    said = [f"<{kind}>\nwhat colour is it?", f"<think> it looks {color} </think> <answer> {color} </answer>"]
    said += ["is it red?", "yes" if color == "red" else "no"]
    speakers = ("human", "gpt", "human", "gpt")
    talk = [{"from": who, "value": value} for who, value in zip(speakers, said, strict=True)]
    return {"id": str(number), kind: name, "conversations": talk, **more}


def question_set(folder: Path, images: int = 12, videos: int = 0, name: str = "talk.jsonl", first: int = 0) -> str:
    """Write a set and give its NAME:FOLDER: scene i is image i, or behind these a video of five frames."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(first, first + images):
        Image.fromarray(pixels(color_of(i), i)[0]).save(folder / f"{i}.png")
        rows.append(turns("image", f"{i}.png", color_of(i), i))
    for i in range(first + images, first + images + videos):
        shown = Frames(pixels=pixels(color_of(i), i, frames=5), pts_seconds=np.arange(5) / 4.0)
        write(folder / f"{i}.mp4", shown.pixels, fps=4)
        rows.append(turns("video", f"{i}.mp4", color_of(i), i))
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"llava:{folder / name}"


def file_recipe(stage: str, out: Path, *tasks: str, **changes: object) -> TrainRecipe:
    """A recipe of some seconds on question files; `data` and `eval` are changes to its sections."""
    sizes = {"image_size": 32, "video_size": 32, "frame_count": 4, "workers": 0, "image_scenes": 3, "video_scenes": 2}
    data = DataRecipe(questions=tasks, **(sizes | changes.pop("data", {})))  # type: ignore[operator]
    measured = EvalRecipe(**({"scenes": 3, "share": 0.25} | changes.pop("eval", {})))  # type: ignore[operator]
    budget = BudgetRecipe(keep=(0.5, 0.25), weights=(0.5, 0.5))
    return small_recipe(stage, out, **({"data": data, "eval": measured, "budget": budget} | changes))
