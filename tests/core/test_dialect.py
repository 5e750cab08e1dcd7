"""How policies are spoken to: the ids of a dialect are those of the processor, whatever the tokenizer and template."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_chat import CLOSE, QWEN, TEXT_END, TURN, VICUNA, bytes_tokenizer, chat_policy, pieces_tokenizer
from transformers import AutoProcessor, PreTrainedTokenizerFast

from entropy_vision import Budget, EntropyVLMProcessor, UsageError
from entropy_vision import dialect as dialects
from entropy_vision.dialect import INSTRUCTION, ChatDialect, WordDialect, Wording, dialect_of, render, spoken
from entropy_vision.text import ASSISTANT, END, completion_ids, prompt_ids, token_id
from tests.small_policy import noise_frames, small_policy

QUESTION = "is the red circle left of the blue circle ?"
GOLD = "<think> r1 c2 </think> <answer> left </answer>"
OPENED = "{{ bos_token }}" + VICUNA  # a template that writes what the tokenizer would put there as well
TOKENIZERS = [
    (bytes_tokenizer, QWEN),
    (pieces_tokenizer, VICUNA),
    (pieces_tokenizer, OPENED),
    (bytes_tokenizer, None),
]


def _asked(processor: EntropyVLMProcessor, system: str, text: str) -> list[int]:
    """What the processor makes of the same conversation, four patches of its picture kept."""
    content = [{"type": "image", "image": noise_frames(0)}, {"type": "text", "text": text}]
    turns = [{"role": "user", "content": content}]
    if system:
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    made = processor.apply_chat_template(turns, **how, processor_kwargs={"budget": Budget(tokens=4)})
    return list(made["input_ids"][0].tolist())


@pytest.mark.parametrize(("make", "template"), TOKENIZERS)
@pytest.mark.parametrize(("system", "instruction"), [("", ""), ("", "Be brief."), ("Look twice.", "Be brief.")])
def test_a_prompt_is_what_the_processor_makes(make: object, template: str, system: str, instruction: str) -> None:
    model, processor = chat_policy(make(template))  # type: ignore[operator]
    dialect = dialect_of(model, processor, system, instruction)
    assert isinstance(dialect, ChatDialect)
    text = f"{QUESTION}\n{instruction}" if instruction else QUESTION
    whole = [*dialect.before, *[processor.image_token_id] * 4, *dialect.prompt(QUESTION)]
    assert whole == _asked(processor, system, text)
    if processor.tokenizer.bos_token_id is not None:
        assert whole.count(processor.tokenizer.bos_token_id) == 1 == dialect.before.count(whole[0])


def test_a_question_is_rendered_once_for_all_that_a_step_does_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dialect_of(*chat_policy(bytes_tokenizer(), "qwen2"))
    rendered: list[str] = []

    def counted(processor: EntropyVLMProcessor, wording: Wording, question: str, said: str | None = None) -> str:
        rendered.append(question)
        return render(processor, wording, question, said)

    monkeypatch.setattr(dialects, "render", counted)
    first = known.prompt("how many?")
    first.append(0)  # a caller's own
    assert known.prompt("how many?") == first[:-1] and known.prompt("why?") != first[:-1]
    assert rendered == ["how many?", "why?"]


def test_marks_in_a_question_stand_for_no_picture() -> None:
    dialect = dialect_of(*chat_policy(bytes_tokenizer()))
    assert dialect.prompt(f"<image>\n{QUESTION} <video>") == dialect.prompt(QUESTION)


@pytest.mark.parametrize(("make", "template"), TOKENIZERS)
def test_a_demonstration_is_said_back_and_ends(make: object, template: str) -> None:
    dialect = dialect_of(*chat_policy(make(template)))  # type: ignore[operator]
    ids, thought = dialect.demonstration(GOLD)
    assert ids[-1] == dialect.ends[0] and not set(ids[:-1]) & set(dialect.ends)
    assert dialect.text(ids) == GOLD == dialect.text([*ids, 7, 8])
    assert dialect.text(ids[:-1]) == GOLD  # cut at the limit
    assert dialect.text(ids[:thought]).strip() == "<think> r1 c2 </think>"
    assert dialect.demonstration("left")[1] == 0


def test_ends_are_those_of_the_template_the_tokenizer_and_the_policy() -> None:
    tokenizer = bytes_tokenizer()
    model, processor = chat_policy(tokenizer)
    close, end, turn = tokenizer.convert_tokens_to_ids([CLOSE, TEXT_END, TURN])
    assert dialect_of(model, processor).ends == (close, end)
    model.generation_config.eos_token_id = [end, turn]
    assert dialect_of(model, processor).ends == (close, end, turn)
    pieces = pieces_tokenizer()
    assert dialect_of(*chat_policy(pieces)).ends == (pieces.eos_token_id,)
    assert dialect_of(*chat_policy(pieces)).pad == pieces.eos_token_id


def test_a_template_that_opens_the_thinking_gets_it_back() -> None:
    template = QWEN.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    assert template != QWEN
    dialect = dialect_of(*chat_policy(bytes_tokenizer(template)))
    ids, _ = dialect.demonstration(GOLD)
    assert dialect.tokenizer.decode(ids[:-1]) == GOLD.removeprefix("<think> ") and dialect.text(ids) == (
        "<think>" + GOLD.removeprefix("<think> ")
    )


def test_by_default_a_policy_is_asked_as_it_was_trained() -> None:
    model, processor = chat_policy(bytes_tokenizer(), inputs={"system": "Look.", "instruction": "Be brief."})
    plain, _ = chat_policy(bytes_tokenizer())
    found = dialect_of(model, processor)
    assert isinstance(found, ChatDialect) and found.wording == Wording("Look.", "Be brief.")
    changed = dialect_of(model, processor, instruction="")
    assert isinstance(changed, ChatDialect) and changed.wording == Wording("Look.", "")
    default = dialect_of(plain, processor)
    assert isinstance(default, ChatDialect) and default.wording == Wording("", INSTRUCTION)


def test_the_word_level_format_is_as_it_was() -> None:
    model, tokenizer = small_policy()
    dialect = dialect_of(model, EntropyVLMProcessor.for_model(model, tokenizer))
    assert dialect == spoken(tokenizer) == spoken(dialect)
    assert isinstance(dialect, WordDialect) and dialect.before == ()
    assert dialect.start == token_id(tokenizer, ASSISTANT) and dialect.ends == (token_id(tokenizer, END),)
    assert dialect.prompt(QUESTION) == prompt_ids(tokenizer, QUESTION)
    assert dialect.demonstration(GOLD) == (completion_ids(tokenizer, GOLD), 4)
    assert dialect.text(completion_ids(tokenizer, GOLD)) == GOLD
    with pytest.raises(UsageError, match="knows no system message"):
        dialect_of(model, EntropyVLMProcessor.for_model(model, tokenizer), instruction="Be brief.")


def test_a_word_level_tokenizer_with_a_template_speaks_by_it() -> None:
    model, tokenizer = small_policy()
    tokenizer.chat_template = VICUNA
    dialect = dialect_of(model, EntropyVLMProcessor.for_model(model, tokenizer))
    assert isinstance(dialect, ChatDialect)


def test_other_tokenizers_do_not_speak_for_themselves() -> None:
    with pytest.raises(UsageError, match="dialect_of"):
        spoken(bytes_tokenizer())


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses the prompt: roles must alternate"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "makes 0 placeholders"),
        ("{{ messages[-1]['content'] }}<image>", "makes 2 placeholders"),
        ("{{ messages[-1]['content'].split('>')[1] }}<image>", "makes 1 placeholders"),
    ],
)
def test_templates_that_do_not_fit_are_told(template: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        dialect_of(*chat_policy(bytes_tokenizer(template)))


@pytest.mark.parametrize(("make", "template"), TOKENIZERS)
def test_it_is_the_same_after_saving_and_loading(make: object, template: str, tmp_path: Path) -> None:
    """Twice, as a run that goes on saves it: nothing is written twice over."""
    tokenizer: PreTrainedTokenizerFast = make(template)  # type: ignore[operator]
    model, processor = chat_policy(tokenizer)
    dialect = dialect_of(model, processor)
    for folder in (tmp_path / "once", tmp_path / "twice"):
        processor.save_pretrained(folder)
        processor = AutoProcessor.from_pretrained(folder)
        again = dialect_of(model, processor)
        assert again.prompt(QUESTION) == dialect.prompt(QUESTION) and again.before == dialect.before
        assert again.ends == dialect.ends and again.demonstration(GOLD) == dialect.demonstration(GOLD)
        made = EntropyVLMProcessor.for_model(model, processor.tokenizer)
        assert made.chat_template == processor.chat_template
