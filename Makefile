# make demo   the whole job on embedded data, ends with demo/report.html
# make test   lint, types and the test suite
# Both make .venv first; nothing but Python 3.11+ with pip is needed.

# the first Python on the path that is new enough; PYTHON=/path/to/python chooses another
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint venv
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^# make/make/p' Makefile

demo: venv
	@$(BIN)/entropy-vision demo --out demo

# a file's tests stay in one process, in their order: they share fixtures, and some measure
test: lint
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

lint: venv
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

venv: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || { \
		test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, then: make $(or $(MAKECMDGOALS),venv) PYTHON=/path/to/python3.11" >&2; exit 2; }; \
		echo "making .venv with $$($(PYTHON) --version)" >&2; \
		$(PYTHON) -m venv .venv || { rm -rf .venv; \
			echo "Python's venv module is not complete: install it (Debian: apt-get install python3-venv), then the same line again" >&2; exit 2; }; }
	@echo "installing the package and its tools into .venv (some minutes the first time: torch is large)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		echo "opencv-python does not load here (no libGL): taking its headless build" >&2; \
		$(BIN)/python -m pip uninstall --quiet -y opencv-python; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps opencv-python-headless; \
		$(BIN)/python -c 'import cv2'; }
	@$(BIN)/python -c 'import entropy_vision as ev, numpy as np; ev.EntropyTokenizer()(ev.Frames(pixels=np.zeros((3, 64, 64, 3), np.uint8), pts_seconds=np.arange(3.0)))'  # compile once
	@touch $(STAMP)
