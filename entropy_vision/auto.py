"""transformers' Auto classes know this package's names as soon as both are imported, in whichever order.

Registering needs the classes, and those need torch, which `import entropy_vision` must not load. So it waits for the
module of transformers that holds a registry, and registers right after that one has been loaded.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

# registry -> the module here that enters its names when it is imported
_WAITING = {
    "transformers.models.auto.configuration_auto": "entropy_vision.policy_config",
    "transformers.models.auto.modeling_auto": "entropy_vision.policy",
    "transformers.models.auto.processing_auto": "entropy_vision.processor",
}


class _AfterImport:
    """Finds the registries as they would be found without it, and lets something happen when they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _WAITING:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, _WAITING[fullname])  # type: ignore[assignment]
        return spec


class _Then:
    """A loader that imports another module behind the one it loads."""

    def __init__(self, loader: Any, follower: str) -> None:
        self._loader, self._follower = loader, follower

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        importlib.import_module(self._follower)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)


def watch() -> None:
    """Register where transformers' registries are loaded already, and as they come otherwise. Calling twice is once."""
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _AfterImport())
    for registry, follower in _WAITING.items():
        if registry in sys.modules:
            importlib.import_module(follower)
