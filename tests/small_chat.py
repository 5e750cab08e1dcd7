"""Random policies with tokenizers and chat templates as pretrained ones have them: byte-level BPE, and pieces of words
behind a mark that opens every text."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast

from entropy_vision.encoder import VisionEncoder
from entropy_vision.policy import EntropyVLM, EntropyVLMConfig
from entropy_vision.processor import EntropyVLMProcessor
from entropy_vision.sources import world_words
from entropy_vision.text import IMAGE, TAGS

TURN, CLOSE, TEXT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
# as Qwen's: every turn in marks, a system message where none is given
QWEN = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou look closely.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# as LLaVA-1.5's: words alone, and nothing behind an answer
VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() }}: {% endif %}"
    "{{ message['content'] }} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

_PARTS = (
    "{% for part in message['content'] if part['type'] != 'text' %}<{{ part['type'] }}>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
)


def with_parts(template: str) -> str:
    """A template as those of multimodal checkpoints are: pictures and texts of a message as a list."""
    return template.replace("{{ message['content'] }}", _PARTS)


def _corpus() -> Iterator[str]:
    words = world_words().all
    yield "\n".join((*words, *TAGS))
    for i in range(200):
        chosen = [words[(i * 7 + j * j) % len(words)] for j in range(8)]
        yield f"<think> {' '.join(chosen)} </think> <answer> {chosen[0]} </answer>"
    yield "system user assistant USER: ASSISTANT: First think about what you see, then write the answer alone."


def bytes_tokenizer(template: str | None = QWEN, size: int = 700) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the World's words; its eos ends a text, the template's own mark a turn."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [TEXT_END, TURN, CLOSE, IMAGE]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=TEXT_END, pad_token=TEXT_END, chat_template=template
    )


def pieces_tokenizer(template: str | None = VICUNA, size: int = 500) -> PreTrainedTokenizerFast:
    """Pieces with a mark for the space before them, and `<s>` before every text, as Llama's; no padding token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>", "<s>", "</s>", IMAGE])
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=template
    )


def chat_policy(
    tokenizer: PreTrainedTokenizerFast, decoder: str = "qwen2", seed: int = 0, scale: float = 0.2, **config: object
) -> tuple[EntropyVLM, EntropyVLMProcessor]:
    """A random policy over a tokenizer, whose table of words is larger than the vocabulary, and its processor."""
    torch.manual_seed(seed)
    text = CONFIG_MAPPING[decoder](
        vocab_size=len(tokenizer) + 5,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=scale,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    settings = EntropyVLMConfig(
        vision=VisionEncoder("ev-tiny-96").config,
        text=text.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        pad_token_id=text.pad_token_id,
        eos_token_id=text.eos_token_id,
        **config,
    )
    model = EntropyVLM(settings).eval()
    return model, EntropyVLMProcessor.for_model(model, tokenizer)
