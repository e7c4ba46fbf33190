# make train   install, train SSDLite on the embedded data set, show what it finds
# make test    install, then formatting, lint, types, import contracts and the fast tests

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

.PHONY: train test check slow clean

train: $(READY)
	$(BIN)/python tools/train.py configs/ssdlite_shapes.yaml

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not gpu"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

slow: $(READY)
	$(BIN)/python -m pytest -m "slow and not gpu"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv build *.egg-info runs data/shapes
