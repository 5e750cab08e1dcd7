"""transformers' Auto classes know this package's names as soon as both are imported, in whichever order.

Registering needs the classes, and those need torch, which `import entropy_vision` must not load. So it waits for the
module of transformers that holds a registry, and registers once that one has been loaded. A registry may be loaded by
a module of this package that is not finished itself; then it waits for that one, too, or the two would need each other.
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


class _Watch:
    """A finder that finds what would be found without it, and lets something happen when that has run."""

    def __init__(self) -> None:
        self.running = 0  # modules of this package that are being imported
        self.due: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _WAITING and not fullname.startswith("entropy_vision."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Watched(spec.loader, self)  # type: ignore[assignment]
        return spec

    def register(self) -> None:
        """Import what is due, unless a module of this package is on its way."""
        while self.due and not self.running:
            importlib.import_module(self.due.pop(0))


class _Watched:
    """A loader that tells the watch when it begins and when it is done."""

    def __init__(self, loader: Any, watch: _Watch) -> None:
        self._loader, self._watch = loader, watch

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        own = module.__name__ not in _WAITING
        self._watch.running += own
        try:
            self._loader.exec_module(module)
        finally:
            self._watch.running -= own
        if not own:
            self._watch.due.append(_WAITING[module.__name__])
        self._watch.register()

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)


def watch() -> None:
    """Register where transformers' registries are loaded already, and as they come otherwise. Calling twice is once."""
    if any(isinstance(finder, _Watch) for finder in sys.meta_path):
        return
    finder = _Watch()
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    finder.due += [follower for registry, follower in _WAITING.items() if registry in sys.modules]
    finder.register()
