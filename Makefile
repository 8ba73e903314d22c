# Creates .venv; PYTHON is the interpreter to create it with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

# asv runs in another folder, so that the path must be absolute.
ifdef FMNIST_FAST_DATA
export FMNIST_FAST_DATA := $(abspath $(FMNIST_FAST_DATA))
endif

# Tests run in parallel; the tests of a file run in one process. Idle threads of OpenBLAS sleep at
# once, so that they do not take a core from other tests.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: train test deep checked races strict app lint types bench figures clean

train: .venv/core
	$(BIN)/fmnist-fast train $(ARGS)

test: .venv/dev
	OPENBLAS_THREAD_TIMEOUT=10 $(BIN)/pytest $(PARALLEL) -m 'not slow and not alone'
	$(BIN)/pytest -m 'alone and not slow'

# Long checks: after a change to kernels, and before a release.
deep: .venv/dev
	$(BIN)/pytest -m slow
	$(MAKE) checked CC=gcc
	$(MAKE) races CC=gcc
	$(MAKE) strict CC=clang

# Kernel tests with address and undefined-behaviour sanitizers and Cython's checks. Python itself is
# built without them, so the library of the sanitizer is preloaded.
checked: .venv/dev
	rm -rf build/checked
	FMNIST_FAST_CHECKED=memory FMNIST_FAST_REQUIRE_COMPILED=1 \
	  $(BIN)/pip install --quiet --no-deps --target build/checked .
	cd tests && LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  PYTHONPATH="$(CURDIR)/build/checked" \
	  ../$(BIN)/python -m pytest -p no:cacheprovider -k "not numba" \
	  kernels/test_operations.py kernels/test_train_steps.py kernels/test_predict.py \
	  kernels/test_sparse.py kernels/test_thread_team.py

# Kernel tests with the thread sanitizer: data races between the threads of a team. The barriers are
# the same for every instruction set.
races: .venv/dev
	rm -rf build/races
	FMNIST_FAST_CHECKED=threads FMNIST_FAST_REQUIRE_COMPILED=1 \
	  $(BIN)/pip install --quiet --no-deps --target build/races .
	cd tests && LD_PRELOAD="$$($(CC) -print-file-name=libtsan.so)" \
	  TSAN_OPTIONS=ignore_noninstrumented_modules=1 PYTHONPATH="$(CURDIR)/build/races" \
	  ../$(BIN)/python -m pytest -p no:cacheprovider -k "cython and bits and baseline" \
	  kernels/test_train_steps.py kernels/test_sparse.py

# Kernels built by $CC with warnings as errors, and their tests: make strict CC=clang
strict: .venv/dev
	rm -rf build/strict build/temp*
	CC=$(CC) CFLAGS=-Werror FMNIST_FAST_REQUIRE_COMPILED=1 \
	  $(BIN)/pip install --quiet --no-deps --target build/strict .
	cd tests && PYTHONPATH="$(CURDIR)/build/strict" \
	  ../$(BIN)/python -m pytest -p no:cacheprovider -k "not numba" \
	  kernels/test_operations.py kernels/test_train_steps.py kernels/test_predict.py \
	  kernels/test_sparse.py kernels/test_thread_team.py

app: .venv/app
	$(BIN)/fmnist-fast app $(ARGS)

# Every benchmark of the suite once, on this checkout; `asv machine --yes` avoids a prompt.
bench: .venv/dev
	$(BIN)/asv machine --yes --config benchmarks/asv.conf.json >/dev/null
	$(BIN)/asv run --config benchmarks/asv.conf.json --quick --show-stderr \
	  --environment existing:$(CURDIR)/$(BIN)/python $(ARGS)

# The tables of measurements in both READMEs, and the plot.
figures: .venv/dev
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/fmnist-fast bench --peers --rounds 9 --json >build/bench.json
	mv build/bench.json docs/bench.json
	$(BIN)/python benchmarks/readme_tables.py

lint: .venv/dev build/tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint kernels
	cd build/tree && PYTHONPATH=. ../../$(BIN)/lint-imports --config ../../pyproject.toml

types: .venv/dev build/tree
	cd build/tree && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p fmnist_fast

# A copy of the sources that has kernels/ where an installed package has it, for mypy and
# import-linter.
.PHONY: build/tree
build/tree:
	rm -rf build/tree
	mkdir -p build/tree
	cp -R fmnist_fast build/tree/
	cp -R kernels build/tree/fmnist_fast/
	find build/tree -name '*.so' -delete

clean:
	rm -rf .venv build dist *.egg-info

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is missing or older than 3.11: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	touch $@

# Install this checkout with extras, and say so if the compiled kernels could not be built.
define install
	@echo 'Installing fmnist-fast in .venv and compiling its kernels, which takes a minute or more'
	$(BIN)/pip install --editable '.$(1)'
	@$(BIN)/python -c "from fmnist_fast.nn.backend import unavailable_reason as why; \
	  reason = why('cython'); print('The cython backend', reason) if reason else None"
endef

.venv/core: .venv/python pyproject.toml setup.py
	$(call install,)
	touch $@

.venv/app: .venv/python pyproject.toml setup.py
	$(call install,[app])
	touch .venv/core $@

# In one step: installing on top of .venv/core would build the kernels a second time.
.venv/dev: .venv/python pyproject.toml setup.py
	$(call install,[dev])
	touch .venv/core $@
