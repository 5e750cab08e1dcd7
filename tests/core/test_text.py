"""The word tokenizer and the one format of prompts and completions."""

from __future__ import annotations

import pytest

from entropy_vision.question import Answer
from entropy_vision.rl import verify
from entropy_vision.sources import world_source, world_words
from entropy_vision.text import (
    ASSISTANT,
    END,
    answer_text,
    completion_ids,
    decode,
    gold_completion,
    prompt_ids,
    token_id,
    word_tokenizer,
)


def test_completion_comes_back_as_it_was() -> None:
    tokenizer = word_tokenizer(["left", "r1c2", "red"])
    text = "<think> red r1c2 </think> <answer> left </answer>"
    ids = completion_ids(tokenizer, text)
    assert ids[-1] == token_id(tokenizer, END)
    assert decode(tokenizer, ids) == text
    assert decode(tokenizer, [*ids, ids[0]]) == text  # what stands behind the end mark is not said


def test_prompt_is_lower_case_words_and_marks() -> None:
    tokenizer = word_tokenizer(["is", "it", "?", "red"])
    expected = [*(token_id(tokenizer, w) for w in ("is", "it", "red", "?")), token_id(tokenizer, ASSISTANT)]
    assert prompt_ids(tokenizer, "Is it red?") == expected


def test_every_demonstration_of_the_world_is_in_the_vocabulary_and_verifies() -> None:
    tokenizer = word_tokenizer(world_words().all)
    unknown = token_id(tokenizer, "<unk>")
    for medium in ("image", "video"):
        source = world_source(medium, split="train", difficulty=1.0, seed=1, size=64, frame_count=8)
        for index in range(40):
            for item in source.scene(index):
                gold = gold_completion(item.answer, item.rationale)
                ids = completion_ids(tokenizer, gold)
                assert unknown not in ids and unknown not in prompt_ids(tokenizer, item.question)
                verdict = verify(decode(tokenizer, ids), item.answer)
                assert verdict.score == 1.0 and verdict.format_ok, gold


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer("choice", "B", options=("red", "green")), "green"),
        (Answer("yesno", False), "no"),
        (Answer("integer", 3), "3"),
    ],
)
def test_answer_text_is_what_a_right_completion_says(answer: Answer, text: str) -> None:
    assert answer_text(answer) == text
