# `make rollout` plays τ² tasks without GPU, key or network. `make test` runs the tests. Both install what they need into
# .venv, which git ignores.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
MUTMUT_VERSION := 3.8.1
MEGATRON_VERSION := 0.16.1
# 0.3.0 declares Python 3.11 and has the dependencies; 0.4.0 declares 3.12, runs on 3.11 and reads what the SDK of today sends.
SKYRL_DEPENDENCIES := 0.3.0
SKYRL_VERSION := 0.4.0
SLIME_DIR ?= .cache/slime
SLIME_COMMIT := 624b824a8

.PHONY: rollout learn learn-tinker test test-fast test-full test-nightly mutants lint setup lock clean

rollout: setup
	$(BIN)/tau2-slime rollout $(ARGS)

# A policy gets better: GRPO with slime's loss and real servers on a CPU (docs/learning.md). SLIME_DIR names a slime checkout;
# without it one is cloned.
learn: $(VENV)-learn/.ready $(SLIME_DIR)/slime
	$(BIN)/python tests/tokens/fetch_templates.py
	$(BIN)/python tests/engine/setup_env.py
	$(VENV)-learn/bin/python -W ignore -m benchmarks.learning --slime $(SLIME_DIR) $(ARGS)

$(VENV)-learn/.ready: $(VENV)/.ready benchmarks/learning/requirements.txt
	$(PYTHON) -m venv $(VENV)-learn
	$(BIN)/uv pip install --quiet --python $(VENV)-learn/bin/python -r requirements/lock.txt -r benchmarks/learning/requirements.txt
	$(BIN)/uv pip install --quiet --python $(VENV)-learn/bin/python --no-deps -e . megatron-core==$(MEGATRON_VERSION)
	@touch $@

# The Tinker door trains against SkyRL's server, from the warm start that `make learn` made.
learn-tinker: $(VENV)-skyrl/.ready
	$(BIN)/python -m benchmarks.learning.tinker_run $(VENV)-skyrl/bin/python $(ARGS)

$(VENV)-skyrl/.ready: $(VENV)/.ready
	$(PYTHON) -m venv $(VENV)-skyrl
	$(BIN)/uv pip install --quiet --python $(VENV)-skyrl/bin/python torch==2.13.0
	$(BIN)/uv pip install --quiet --python $(VENV)-skyrl/bin/python "skyrl[tinker,jax]==$(SKYRL_DEPENDENCIES)" tinker==0.38.0 aiohttp
	$(VENV)-skyrl/bin/python -m pip install --quiet --ignore-requires-python --no-deps skyrl==$(SKYRL_VERSION)
	@touch $@

.cache/slime/slime:
	git clone --quiet https://github.com/THUDM/slime .cache/slime
	git -C .cache/slime checkout --quiet $(SLIME_COMMIT)

# All tests: first those that two processes can share, then the servers that need both cores, then the backends.
test: setup
	$(BIN)/python tests/tokens/fetch_templates.py
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -n 2 --ignore=tests/engine --ignore=tests/backends
	$(BIN)/python -m pytest tests/engine
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/backends
else
	$(BIN)/python -m pytest $(ARGS)
endif

# The tests marked `fast`: the logic, without servers of their own. Less than 90 seconds.
test-fast: setup
	$(BIN)/python -m pytest -n 2 -m fast $(ARGS)

# Also every task of every domain, scored by both orchestrators. This takes an hour or two.
test-full: setup
	$(BIN)/python tests/tokens/fetch_templates.py
	TAU2_SLIME_FULL=1 $(BIN)/python -m pytest $(ARGS)

# The fast environments against τ²'s own: every gold trajectory, and 10,000 random sequences a domain; and 50,000 hostile
# inputs for each reader of what models and endpoints send. This takes hours.
test-nightly: setup
	TAU2_SLIME_NIGHTLY=1 $(BIN)/python -m pytest tests/world/test_gold_as_stock.py tests/world/test_random_as_stock.py \
		tests/test_fuzz.py $(ARGS)

# Mutation testing of the parts that decide about tokens, rewards and scores (pyproject.toml lists them). This takes hours.
mutants: $(VENV)-mutants/.ready
	$(BIN)/python tests/tokens/fetch_templates.py
	PATH="$(CURDIR)/$(VENV)-mutants/bin:$$PATH" mutmut run $(ARGS)
	PATH="$(CURDIR)/$(VENV)-mutants/bin:$$PATH" python tests/mutants.py

$(VENV)-mutants/.ready: $(VENV)/.ready
	$(PYTHON) -m venv $(VENV)-mutants
	$(BIN)/uv pip install --quiet --python $(VENV)-mutants/bin/python -r requirements/lock.txt mutmut==$(MUTMUT_VERSION)
	@touch $@

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tau2_slime needs Python >= 3.11: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements/lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

# Run this after a change of the dependencies in pyproject.toml.
lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header \
		--extra dev pyproject.toml -o requirements/lock.txt

clean:
	rm -rf $(VENV) mutants $(VENV)-mutants $(VENV)-learn $(VENV)-skyrl .venv-3.12 .venv-3.13 .venv-engine .venv-verifiers .venv-verifiers-v1 .venv-tinker .venv-maseval .venv-miles .venv-smg .venv-ray .cache
