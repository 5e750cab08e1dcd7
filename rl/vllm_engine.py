"""Completions sampled by vLLM (experimental: run on vLLM's CPU build only, never on an accelerator).

The policy makes embeddings of whole prompts (the text before a picture, its visual tokens, the question), vLLM reads
them as it reads embedded text and samples, and its log-probabilities come back as the old ones of the ratio. Weights
follow after every update. vLLM lives in a process and, where need be, an environment of its own.

vLLM counts rotary positions one by one, so this is for policies with `visual_positions="sequential"` alone.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from entropy_vision.dialect import Dialect
from entropy_vision.errors import UsageError
from entropy_vision.policy import EntropyVLM

from .batch import Batch
from .engines import Wanted
from .rollout import Rollouts, pad_rows

_WORKER = Path(__file__).with_name("vllm_worker.py")
_LANGUAGE = "language"
_START = 900.0  # seconds that vLLM may take to be there
_PATIENCE = 30.0  # seconds that it may take to end


class VllmEngine:
    """An `Engine` over a worker that is up; made by `vllm_engine`."""

    def __init__(self, model: EntropyVLM, dialect: Dialect, line: Connection, folder: Path) -> None:
        self.model, self.dialect, self.line, self.folder = model, dialect, line, folder
        self._sent = self._versions()

    def _versions(self) -> list[int]:
        """How often each weight has been changed."""
        return [p._version for p in self.model.language.parameters()]

    def __call__(self, wanted: Wanted) -> Rollouts:
        self._send_weights()
        prompts = embed_prompts(self.model, self.dialect, wanted.batch, wanted.questions)
        path = self.folder / "prompts.safetensors"
        save_file({str(i): prompt.float().cpu().contiguous() for i, prompt in enumerate(prompts)}, path)
        seed = torch.randint(2**31, (1,), generator=wanted.generator, device=self.model.device)
        given = self._ask(
            prompts=str(path),
            group=wanted.group,
            temperature=wanted.temperature,
            max_new_tokens=wanted.max_new_tokens,
            ends=list(self.dialect.ends),
            blocked=self.model.blocked.nonzero()[:, 0].tolist(),  # type: ignore[operator]
            seed=int(seed),
        )
        return self._rollouts(given["ids"], given["logp"])

    def _send_weights(self) -> None:
        """The language model's weights, where they have changed since."""
        language, versions = self.model.language, self._versions()
        if versions == self._sent:
            return
        _write(language, self.folder / _LANGUAGE)
        self._ask()
        self._sent = versions

    def _ask(self, **what: Any) -> dict[str, Any]:
        try:
            self.line.send_bytes(json.dumps(what).encode())
            return dict(json.loads(self.line.recv_bytes()))
        except (EOFError, OSError) as error:
            raise UsageError(f"vLLM's process has ended: {_last_word(self.folder / 'log')}") from error

    def _rollouts(self, ids: list[list[int]], logp: list[list[float]]) -> Rollouts:
        device = self.model.device
        padded, mask = pad_rows(ids, 0)
        padded = padded * mask
        logps = torch.zeros(padded.shape)
        logps[mask] = torch.tensor([one for row in logp for one in row])
        cut = torch.tensor([row[-1] not in self.dialect.ends for row in ids])
        # of an entropy there is only its estimate by the token that was drawn: its expectation is the entropy
        entropy = -logps
        texts = [self.dialect.text(row) for row in ids]
        tokens, mask, logps, entropy, cut = (t.to(device) for t in (padded, mask, logps, entropy, cut))
        return Rollouts(tokens, mask, logps, entropy, cut, texts)


@torch.no_grad()
def embed_prompts(model: EntropyVLM, dialect: Dialect, batch: Batch, questions: Sequence[int]) -> list[Tensor]:
    """Whole prompts as the language model's input embeddings: for each question [T, D_text]."""
    visual = model.embed_patches(batch.patches).split(list(model.slots(batch.patches).counts))
    words = model.get_input_embeddings()

    def embedded(ids: Sequence[int]) -> Tensor:
        return words(torch.tensor(list(ids), dtype=torch.long, device=model.device))  # type: ignore[no-any-return]

    before = embedded(dialect.before)
    return [
        torch.cat((before, visual[int(batch.owner[q])], embedded(dialect.prompt(batch.asks[q].question))))
        for q in questions
    ]


@contextmanager
def vllm_engine(model: EntropyVLM, dialect: Dialect, python: str = "", **settings: Any) -> Iterator[VllmEngine]:
    """vLLM beside the policy while the block runs.

    Args:
        python: of an environment with vLLM; by default this one.
        settings: of `vllm.LLM`, such as gpu_memory_utilization.

    Raises:
        UsageError: the policy counts positions in a way that vLLM does not, or vLLM does not come up.
    """
    if model.config.visual_positions != "sequential":
        raise UsageError(
            f'vLLM counts positions one by one, and this policy has visual_positions="{model.config.visual_positions}"'
            ': leave grpo.engine at "own"'
        )
    with tempfile.TemporaryDirectory(prefix="entropy-vision-") as name:
        folder = Path(name)
        _write(model.language, folder / _LANGUAGE)
        given = {"model": str(folder / _LANGUAGE), **_settings(model.device), **settings}
        with Listener(str(folder / "line"), "AF_UNIX") as listener, (folder / "log").open("w") as log:
            line = [python or sys.executable, str(_WORKER), str(folder / "line"), json.dumps(given)]
            worker = subprocess.Popen(
                line,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(model.device),
                start_new_session=True,  # a signal to the whole group is the trainer's to answer
            )
            try:
                with _met(listener, worker, folder / "log") as connection:
                    yield VllmEngine(model, dialect, connection, folder)
            finally:
                worker.terminate()
                try:
                    worker.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    worker.kill()
                    worker.wait()


def _write(language: Any, folder: Path) -> None:
    """The language model as vLLM reads it, now and again. Embeddings that are tied are written twice and called apart:
    vLLM's CPU build does not renew a tied head when it reads weights anew."""
    config = copy.deepcopy(language.config)
    config.tie_word_embeddings, config.architectures = False, [type(language).__name__]
    config.save_pretrained(folder)
    state = {name: tensor.detach().cpu().clone() for name, tensor in language.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _settings(device: torch.device) -> dict[str, Any]:
    """What vLLM is told by default: the policy needs most of an accelerator's memory itself."""
    if device.type == "cuda":
        return {"dtype": "bfloat16", "gpu_memory_utilization": 0.3}
    return {"dtype": "float32", "enforce_eager": True}


def _environment(device: torch.device) -> dict[str, str]:
    """The worker's: the policy's accelerator, and no path to the trainer's packages."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if device.type == "cuda":
        seen = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        environment["CUDA_VISIBLE_DEVICES"] = seen[device.index or 0] if seen else str(device.index or 0)
    return environment


def _met(listener: Listener, worker: subprocess.Popen[bytes], log: Path) -> Connection:
    """The worker's end of the line.

    Raises:
        UsageError: it ended before it was up.
    """
    socket = listener._listener._socket  # type: ignore[attr-defined]
    socket.settimeout(1.0)
    for _ in range(int(_START)):
        if worker.poll() is not None:
            raise UsageError(f"vLLM did not start (grpo.engine_python names its Python): {_last_word(log)}")
        try:
            connection = listener.accept()
        except TimeoutError:
            continue
        connection.recv_bytes()
        return connection
    raise UsageError(f"vLLM was not up after {_START:.0f} s; it said last: {_last_word(log)}")


def _last_word(log: Path) -> str:
    said = [row for row in log.read_text(errors="replace").splitlines() if row.strip()]
    return said[-1] if said else "it said nothing"
