# Everything runs in .venv, which is made when it is not there and brought up to date when pins or needs change.

# The first Python that is new enough; `make PYTHON=/path/to/python` decides otherwise.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
NEEDS := pyproject.toml constraints.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check zoo fuzz soak bench runtimes

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed-demo ## graft dendrites onto a sample model, and write runs/demo
	$(BIN)/graftkit augment sample_models/cnn.pt --data digits --out runs/demo --force

test: .venv/.installed-test ## run the tests
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --ignore tests/e2e
	$(BIN)/pytest tests/e2e

zoo: .venv/.installed-zoo ## try 467 architectures, and write docs/coverage.md (some hours)
	$(BIN)/python -m tests.zoo --write docs/coverage.md

fuzz: .venv/.installed-test ## give every reader 10,000 broken and hostile files (half an hour)
	$(BIN)/python -m tests.fuzz --cases 10000

soak: .venv/.installed-test ## kill runs at 50 random moments, and workers of runs of two, and see each go on (20 minutes)
	$(BIN)/pytest tests/e2e/test_resume.py tests/e2e/test_torchrun.py --kills 50

# Where graftkit finds what is not in .venv; it looks into no folder by itself.
FOREIGN = GRAFTKIT_MNN_PYTHON=$(CURDIR)/.venv-mnn/bin/python GRAFTKIT_NCNN_PYTHON=$(CURDIR)/.venv-ncnn/bin/python \
	GRAFTKIT_ONNXRUNTIME_WEB=$(CURDIR)/.node/node_modules/onnxruntime-web

runtimes: .venv/.installed-zoo .venv-mnn/.installed .venv-ncnn/.installed .node/.installed ## run files in all runtimes, and write docs/runtimes.md (half an hour; needs node and chromium)
	$(FOREIGN) GRAFTKIT_ALL_RUNTIMES=1 $(BIN)/pytest tests/conformance/test_runtimes.py tests/unit/test_workers.py tests/unit/test_web.py tests/unit/test_gate_runtimes.py
	$(FOREIGN) $(BIN)/python -W ignore benchmarks/runtimes.py --raw runs/bench/runtimes.jsonl --write docs/runtimes.md

.venv-mnn/.installed: constraints.txt
	'$(PYTHON)' -m venv .venv-mnn
	.venv-mnn/bin/python -m pip install --quiet --constraint constraints.txt numpy mnn
	@touch $@

# pnnx asks for torch, which its program for ONNX files does without.
.venv-ncnn/.installed: constraints.txt
	'$(PYTHON)' -m venv .venv-ncnn
	.venv-ncnn/bin/python -m pip install --quiet --constraint constraints.txt numpy ncnn
	.venv-ncnn/bin/python -m pip install --quiet --no-deps --constraint constraints.txt pnnx
	@touch $@

.node/.installed: Makefile
	npm install --prefix .node --no-audit --no-fund --silent onnxruntime-web@1.30.0
	@touch $@

# Where the data of the benchmarks lie, or are fetched to, and how many processes share the work.
DATA ?= data
WORKERS ?= 2
FRONTIER := $(BIN)/python -W ignore benchmarks/frontier.py
ALIKE = --workers $(WORKERS) --perforated .venv-perforated/bin/python --raw runs/bench/$@.jsonl --out runs/bench/$@.md

bench: speech voices cifar gates ideas mnist digits compress adapt worse pruning front half floor robustness ## rerun the comparisons of docs/frontier.md and more (days)

.PHONY: speech voices cifar gates ideas mnist digits compress adapt worse pruning front half floor robustness data
speech: data
	$(FRONTIER) $@ --path $(DATA)/fsdd.npz $(ALIKE) --plot docs/frontier-$@.svg
voices: data
	$(FRONTIER) $@ --path $(DATA)/fsdd.npz $(ALIKE) --seeds 12
cifar: data
	$(FRONTIER) $@ --path $(DATA)/cifar10_part.npz $(ALIKE) --plot docs/frontier-$@.svg
gates: data
	$(FRONTIER) cifar --path $(DATA)/cifar10_part.npz --kinds own+around --shapes 12-20-28 13-21-29 \
		--ways plain 'from the start' continued grafted \
		--workers $(WORKERS) --raw runs/bench/$@.jsonl --out runs/bench/$@.md
ideas: data
	$(BIN)/python -W ignore benchmarks/$@.py cifar --path $(DATA)/cifar10_part.npz --shapes 6-10-14 --plain 8-13-18 --seeds 3 \
		--workers $(WORKERS) --raw runs/bench/$@.jsonl > runs/bench/$@-cifar.md
	$(BIN)/python -W ignore benchmarks/$@.py speech --path $(DATA)/fsdd.npz --shapes 6-8 --plain 6-6 8-8 8-12 \
		--workers $(WORKERS) --raw runs/bench/$@.jsonl > runs/bench/$@-speech.md
mnist: data
	$(FRONTIER) $@ --path $(DATA)/mnist.npz $(ALIKE) --plot docs/frontier-$@.svg
digits: data
	$(FRONTIER) $@ $(ALIKE) --plot docs/frontier-$@.svg
compress: data
	$(BIN)/python -W ignore benchmarks/compress.py --path $(DATA)/mnist.npz --workers $(WORKERS) \
		--raw runs/bench/$@.jsonl --out runs/bench/$@.md
adapt: data .venv-peft/.installed
	.venv-peft/bin/python -W ignore benchmarks/adapt.py --fsdd $(DATA)/fsdd.npz > runs/bench/$@.md
worse: data
	$(BIN)/python -W ignore benchmarks/never_worse.py --fsdd $(DATA)/fsdd.npz --mnist $(DATA)/mnist.npz \
		--cifar $(DATA)/cifar10_part.npz > runs/bench/$@.md

pruning: data .venv/.installed-test
	$(BIN)/python -W ignore benchmarks/$@.py --path $(DATA)/mnist.npz --raw runs/bench/$@.jsonl --out runs/bench/$@.md
front: data .venv/.installed-test
	$(BIN)/python -W ignore benchmarks/$@.py --fsdd $(DATA)/fsdd.npz --raw runs/bench/$@.jsonl --out runs/bench/$@.md \
		--plot docs/$@.svg
half: data .venv/.installed-test
	$(BIN)/python -W ignore benchmarks/$@.py --fsdd $(DATA)/fsdd.npz --cifar $(DATA)/cifar10_part.npz \
		--nets transformer 'resnet18, pooled' --raw runs/bench/$@.jsonl --out runs/bench/$@.md
floor: data
	$(BIN)/python -W ignore benchmarks/$@.py > runs/bench/$@.md
robustness: data
	$(BIN)/python -W ignore benchmarks/$@.py --fsdd $(DATA)/fsdd.npz --raw runs/bench/$@.jsonl --out runs/bench/$@.md

data: .venv/.installed-demo .venv-perforated/.installed
	@mkdir -p runs/bench
	$(BIN)/python benchmarks/get_data.py $(DATA)

# Each beside the network it wraps: what they depend on need not agree with what the tests do.
.venv-peft/.installed: constraints.txt
	'$(PYTHON)' -m venv .venv-peft
	.venv-peft/bin/python -m pip install --quiet --constraint constraints.txt --editable . peft
	@touch $@

.venv-perforated/.installed: constraints.txt
	'$(PYTHON)' -m venv .venv-perforated
	.venv-perforated/bin/python -m pip install --quiet --constraint constraints.txt torch numpy perforatedai==3.2.9
	@touch $@

check: .venv/.installed-dev ## lint, formatting, types, import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# torchvision's own dependencies would replace the pinned torch.
.venv/.installed-zoo: .venv/.installed-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[hf]'
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt torchvision timm
	@touch $@

# Each extra contains the ones before it, so installing one counts for those as well.
.venv/.installed-demo: INSTALLS := demo
.venv/.installed-test: INSTALLS := demo test
.venv/.installed-dev: INSTALLS := demo test dev

.venv/.installed-%: $(NEEDS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $(INSTALLS:%=.venv/.installed-%)

$(BIN)/python:
	@'$(PYTHON)' -c '$(NEW_ENOUGH)' 2>/dev/null || { echo "graftkit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	'$(PYTHON)' -m venv .venv
