# make train        install, train SSDLite on the embedded data set, show what it finds
# make test         install, then formatting, lint, types, import contracts and the fast tests
# make slow         the tests that take longer
# make demo         fetch what `mbv2det demo` runs networks in browsers with; needs npm
# make test-oldest  install the oldest supported versions beside, then the fast tests with them

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
OLDEST := .venv-oldest
FAST_TESTS := -m pytest -n auto --dist loadfile -m "not slow and not gpu"

DEMO := mbv2det/demo
BROWSER_RUNTIME := ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm

.PHONY: train test test-oldest check slow demo clean

train: $(READY)
	$(BIN)/python tools/train.py configs/ssdlite_shapes.yaml

test: check
	OMP_NUM_THREADS=1 $(BIN)/python $(FAST_TESTS)

test-oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(FAST_TESTS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "slow and not gpu"

demo: $(DEMO)/runtime/.installed

# npm compares the package with the hash in package-lock.json, and runs nothing of it.
$(DEMO)/runtime/.installed: $(DEMO)/package-lock.json
	npm ci --prefix $(DEMO) --ignore-scripts --no-audit --no-fund
	mkdir -p $(DEMO)/runtime
	cd $(DEMO)/node_modules/onnxruntime-web/dist && cp $(BROWSER_RUNTIME) ../../../runtime
	rm -r $(DEMO)/node_modules
	touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --constraint constraints-oldest.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv $(OLDEST) build *.egg-info runs data/shapes $(DEMO)/runtime
