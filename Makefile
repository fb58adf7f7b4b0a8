# The two commands of README are `make demo` and `make test`; both set everything up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo demo-mitochondria demo-full test test-slow test-faults test-cluster test-slurm test-kubernetes check bench tiles score clean

help:
	@echo "make demo       segment a real image on a local cluster and look at it (3 minutes)"
	@echo "make demo-mitochondria  class map, entropy and repair of a phantom stack (2 minutes)"
	@echo "make demo-full  the whole chain on two frames of 4000 x 3000 (4 minutes)"
	@echo "make test       style, types, layers and tests"
	@echo "make test-slow  the tests that take longer"
	@echo "make test-cluster  runs through Dask-Gateway and separate schedulers, workers killed"
	@echo "make test-slurm  a run through a Slurm of one node (Debian's slurm-wlm and munge, as root)"
	@echo "make test-kubernetes  runs on the Kubernetes of KUBECONFIG, pods deleted (deploy/README.md)"
	@echo "make test-faults N=40  runs that are killed, damaged and starved, against whole ones"
	@echo "make bench      throughput and memory, beside the peers"
	@echo "make tiles      how tile settings change the score, on validation images"
	@echo "make score      score the bundled model on the test images"
	@echo "make clean      remove what these commands made"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[test,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m engine.demo nuclei demo

demo-mitochondria: $(STAMP)
	$(BIN)/python -m engine.demo mitochondria demo-mitochondria

demo-full: $(STAMP)
	$(BIN)/python -m engine.demo full demo-full

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Processes of tests, or runs of test-faults, at once.
JOBS ?= 2
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n $(JOBS) --dist loadfile

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

test-cluster: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster --ignore tests/cluster/test_slurm.py

test-slurm: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster/test_slurm.py tests/deploy/test_batch_script.py

# IMAGE and STORE, which its pods can reach, for any Kubernetes but that of tests/support.
test-kubernetes: $(STAMP)
	TEST_KUBERNETES=1 IMAGE=$(IMAGE) STORE=$(STORE) OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest tests/cluster/test_kubernetes.py tests/cluster/test_kubernetes_deploy.py

# Seeds, those of them with the bundled network; STORE is a folder or s3:// prefix.
N ?= 40
REAL ?= $(shell expr $(N) / 20)
test-faults: $(STAMP)
	$(BIN)/python -m tests.faults --seeds 0:$(N) --real $(REAL) --jobs $(JOBS) \
		$(if $(STORE),--store $(STORE)) --save benchmarks/results/faults.json

bench: $(STAMP)
	$(BIN)/python benchmarks/throughput.py

tiles: $(STAMP)
	$(BIN)/python benchmarks/tiles.py

score: $(STAMP)
	$(BIN)/python benchmarks/score_dsb2018.py
	$(BIN)/python benchmarks/score_recipe.py

clean:
	rm -rf $(VENV) demo demo-mitochondria demo-full .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
