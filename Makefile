# make demo    tags to masks to segmenters on synthetic scenes
# make test    formatter, linter, type checker, tests
# make faults  300 rounds of faults into docs/faults.md, 20 minutes
# make fuzz    12,000 cases of wrong input into docs/fuzz.md, 12 minutes
# make flags   the file that help and typos are answered from, after a flag has changed
# make lock    the versions that the suite has passed with, after `make test`
# PYTHON names the interpreter that makes the environment, VENV the folder it lies in.

PYTHON ?= python3
VENV ?= .venv
INSTALLED = $(VENV)/.installed

.PHONY: demo test bench faults fuzz lint flags lock clean

demo: $(INSTALLED)
	$(VENV)/bin/rayseg run --preset demo

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

bench: $(INSTALLED) runs/voc_boxes/detector/detector.safetensors
	set -e; for script in tests/benchmarks/bench_*.py; do echo "$$script"; $(VENV)/bin/python "$$script"; done

runs/voc_boxes/detector/detector.safetensors: | $(INSTALLED)
	$(VENV)/bin/rayseg prepare --config jobs/presets/voc_boxes.toml
	$(VENV)/bin/rayseg train-detector --config jobs/presets/voc_boxes.toml

faults: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.faults --rounds 300 --seed 1 --out docs/faults.md

fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.faults.fuzz --cases 12000 --seed 1 --out docs/fuzz.md

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

flags: $(INSTALLED)
	$(VENV)/bin/python -m rayseg.config.flags

lock: $(INSTALLED)
	grep '^#' constraints.txt > constraints.new
	$(VENV)/bin/python -m pip freeze --exclude-editable | grep '^[^#@ ]*==' >> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@
