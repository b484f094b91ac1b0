# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` do all their own set-up. `make help` lists everything.

PYTHON ?= python3
TORCH ?= torch==2.13.0
INPUT ?=
HASHED ?=
ifneq ($(origin ROS_DISTRO),command line)
ROS_DISTRO := jazzy
endif
VENV := $(if $(filter jazzy,$(ROS_DISTRO)),.venv,.venv-$(ROS_DISTRO))
DEMO_READY := $(VENV)/ready-demo
TEST_READY := $(VENV)/ready-test
MORE_jazzy := ,int8,lint,remote,tensorrt-check,training
# Test files run in parallel, because they mostly wait. One OpenMP thread each: more would compete for the cores.
JOBS ?= 4
PYTEST_OPTIONS := -n $(JOBS) --dist loadfile
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest
SIDE_BY_SIDE := $(PYTEST) $(PYTEST_OPTIONS)
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check
# Of pip's output, one line for each package that is downloaded.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
FETCHED = sed -nEu 's/^ *(Collecting [^ ]+|Downloading [^ ]+ \([0-9.]+ [MG]B\)|Installing collected packages).*/    \1/p' || $(FAILED)
FAILED = { echo "Cannot set up $@, see the error above. Check the network and the free disk space (df -h .)." >&2; exit 1; }

# Packages of a sourced ROS workspace must not mix with those of the virtual environment.
unexport PYTHONPATH AMENT_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH

MINUTES ?= 60

.PHONY: help setup demo test test-all soak coverage mutation test-oldest docs generated lint requirements sbom audit clean

help:
	@echo "make demo [INPUT=folder|video|bag]  run camera, node and recorder; results in demo_output/"
	@echo "make test [ROS_DISTRO=kilted]       run all tests on Jazzy's wheels, or the ROS tests on Kilted's"
	@echo "make test-all                       also run test/nightly: documentation, Ray, soak"
	@echo "make coverage                       make test with coverage of lines and branches; fails under 90 %"
	@echo "make soak [MINUTES=60]              run the node with changes and faults; fails if memory or latency drifts"
	@echo "make mutation                       mutation tests; fails if less than 85 % are detected; takes half an hour"
	@echo "make test-oldest                    run the tests without ROS on the oldest supported libraries"
	@echo "make docs                           build the documentation in docs/_build/"
	@echo "make generated                      update config/canet.yaml, docs/public_api.txt and the marked tables in docs/"
	@echo "make lint                           check formatting, types, imports between layers, spelling"
	@echo "make demo HASHED=1                  make demo with the pinned versions and hashes of requirements/demo.txt"
	@echo "make requirements                   update requirements/demo.txt from setup.py"
	@echo "make sbom                           write the packages of the demo environment to sbom.json (CycloneDX)"
	@echo "make audit                          look up known vulnerabilities of requirements/demo.txt on PyPI"
	@echo "make clean                          remove environments and output"

setup: $(TEST_READY)

$(DEMO_READY): setup.py
	@test "$(ROS_DISTRO)" = kilted -o "$(ROS_DISTRO)" = jazzy || \
		{ echo "ROS_DISTRO=$(ROS_DISTRO): there are pip wheels for jazzy and kilted only"; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit("$(PYTHON) is Python %d.%d, but the ROS 2 wheels support 3.10 to 3.13: \
	choose one, for example make demo PYTHON=python3.12" % v[:2] if not (3, 10) <= v[:2] <= (3, 13) else 0)'
	@echo "Setting up $(VENV), once: 0.6 GB, about a minute"
	@$(PYTHON) -m venv $(VENV) || $(FAILED)
ifneq ($(HASHED),)
	@$(PIP) --require-hashes --requirement requirements/demo.txt | $(FETCHED)
	@$(PIP) --no-deps --no-build-isolation --editable . | $(FETCHED)
else
	@echo "  ROS 2 $(ROS_DISTRO) from pip wheels, OpenVINO and other packages"
	@$(PIP) --editable ".[$(ROS_DISTRO),openvino,bags]" | $(FETCHED)
endif
	@touch $@

$(TEST_READY): $(DEMO_READY)
	@echo "Adding test packages to $(VENV), once: 1.5 GB, or 6 GB where PyTorch includes CUDA"
	@$(PIP) "$(TORCH)" | $(FETCHED)
	@$(PIP) --editable ".[$(ROS_DISTRO),openvino,bags,video,labels,onnxruntime,test$(MORE_$(ROS_DISTRO))]" | $(FETCHED)
	@touch $@

demo: $(DEMO_READY)
	$(VENV)/bin/canet demo --force $(if $(INPUT),--input "$(INPUT)")

# The default folders are in setup.cfg. On Kilted only the tests that use ROS run.
test: $(TEST_READY)
	$(SIDE_BY_SIDE) $(if $(filter kilted,$(ROS_DISTRO)),test/node test/unit/ros) $(PYTEST_ARGS)

test-all: $(VENV)/ready-nightly
	$(SIDE_BY_SIDE) test $(PYTEST_ARGS)

$(VENV)/ready-nightly: $(TEST_READY)
	@$(PIP) --editable ".[ray]" | $(FETCHED)
	@touch $@

soak: $(TEST_READY)
	$(VENV)/bin/python test/nightly/soak/soak_run.py --minutes $(MINUTES) --json soak.json --force

coverage: $(TEST_READY)
	$(SIDE_BY_SIDE) --cov --cov-report=term --cov-fail-under=90 $(PYTEST_ARGS)

# [tool.mutmut] in pyproject.toml selects the mutated modules and the tests.
mutation: $(VENV)/ready-mutation
	$(VENV)/bin/python -m mutmut run
	$(VENV)/bin/python -m mutmut export-cicd-stats
	$(VENV)/bin/python -c 'import json; f = json.load(open("mutants/mutmut-cicd-stats.json")); \
		noticed, total = f["killed"] + f["timeout"], f["total"]; \
		print(f"{noticed} of {total} mutants noticed: {noticed / total:.1%}"); raise SystemExit(noticed < 0.85 * total)'

$(VENV)/ready-mutation: $(TEST_READY)
	@$(PIP) "mutmut>=3.8" | $(FETCHED)
	@touch $@

test-oldest: .venv-oldest/ready
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest $(PYTEST_OPTIONS) -m "not ros and not launch" $(PYTEST_ARGS)

.venv-oldest/ready: setup.py test/oldest.txt
	@echo "Setting up .venv-oldest, once: 6 GB"
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --disable-pip-version-check \
		--editable ".[openvino,onnxruntime,bags,test,torch]" --constraint test/oldest.txt | $(FETCHED)
	@touch $@

docs: $(VENV)/ready-docs
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "docs/_build/index.html"

$(VENV)/ready-docs: $(DEMO_READY)
	@$(PIP) --editable ".[$(ROS_DISTRO),openvino,onnxruntime,bags,docs]" | $(FETCHED)
	@touch $@

generated: $(TEST_READY)
	$(VENV)/bin/python test/generated.py

lint: $(TEST_READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/codespell
	@# Words outside the vocabulary of CONTRIBUTING.md; code in backquotes is exempt.
	$(VENV)/bin/codespell --dictionary test/vocabulary.txt --ignore-regex '`[^`]*`' docs README.md CONTRIBUTING.md

# For the oldest supported Python and all newer ones, with PyPI's hashes.
requirements: .venv-tools/ready
	{ printf '%s\n' "# SPDX-License-Identifier: Apache-2.0" \
		"# Packages of \`make demo\` with the hash of each file. Written by \`make requirements\`, used by \`make demo HASHED=1\`."; \
		.venv-tools/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate \
			--no-header --extra jazzy --extra openvino --extra bags setup.py requirements/demo.in; } > .venv-tools/demo.txt
	mv .venv-tools/demo.txt requirements/demo.txt

sbom: $(DEMO_READY) .venv-tools/ready
	.venv-tools/bin/cyclonedx-py environment --output-file sbom.json --of JSON $(VENV)/bin/python
	@echo sbom.json

# --strict: fails also if a package could not be looked up.
audit: .venv-tools/ready
	.venv-tools/bin/pip-audit --strict --requirement requirements/demo.txt --require-hashes --disable-pip

.venv-tools/ready:
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --disable-pip-version-check uv cyclonedx-bom pip-audit | $(FETCHED)
	@touch $@

clean:
	rm -rf .venv .venv-* build install log demo_output docs/_build docs/reference/api mutants .mypy_cache .pytest_cache .ruff_cache
