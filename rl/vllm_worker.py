"""vLLM in a process of its own: prompts as embeddings in, tokens and their log-probabilities out.

Started by `vllm_engine` with the Python of an environment that has vLLM, which need not be the trainer's; this file
imports nothing of this package. It speaks JSON over a socket, and tensors lie in safetensors files beside it.
"""

from __future__ import annotations

import json
import os
import sys
from multiprocessing.connection import Client, Connection
from typing import Any


def main(address: str, settings: dict[str, Any]) -> None:
    """Serve until the other side hangs up."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # it has a process of its own already
    from vllm import LLM

    llm = LLM(skip_tokenizer_init=True, enable_prompt_embeds=True, logprobs_mode="processed_logprobs", **settings)
    with Client(address, "AF_UNIX") as line:
        line.send_bytes(b"{}")
        serve(llm, line)


def serve(llm: Any, line: Connection) -> None:
    """Answer one request after the other."""
    while True:
        try:
            asked = json.loads(line.recv_bytes())
        except EOFError:
            return
        answer = draw(llm, asked) if "prompts" in asked else read_weights(llm)
        line.send_bytes(json.dumps(answer).encode())


def read_weights(llm: Any) -> dict[str, Any]:
    """Read the model's folder anew; what was kept of prompts is of the old weights."""
    llm.collective_rpc("reload_weights")
    llm.reset_prefix_cache()
    return {}


def draw(llm: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Sample `group` completions of every prompt in the file."""
    from safetensors.torch import load_file
    from vllm import SamplingParams

    embeds = load_file(asked["prompts"])
    params = [
        SamplingParams(
            n=asked["group"],
            temperature=asked["temperature"],
            max_tokens=asked["max_new_tokens"],
            stop_token_ids=asked["ends"],
            logit_bias={int(token): -100.0 for token in asked["blocked"]},
            logprobs=0,
            detokenize=False,
            seed=asked["seed"] + place,
        )
        for place in range(len(embeds))
    ]
    prompts = [{"prompt_embeds": embeds[str(place)]} for place in range(len(embeds))]
    given = llm.generate(prompts, params, use_tqdm=False)
    rows = [one for request in given for one in sorted(request.outputs, key=lambda output: output.index)]
    return {
        "ids": [list(one.token_ids) for one in rows],
        "logp": [[found[token].logprob for token, found in zip(one.token_ids, one.logprobs)] for one in rows],  # noqa: B905
    }


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
