# make test   all checks: style, unit tests, and the tests in a real ComfyUI and browser where there is one
# make bench  the measurements quoted in the README

PYTHON ?= python3
VENV := .venv

.PHONY: test bench clean

test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest

bench: $(VENV)/installed
	$(VENV)/bin/python benchmarks/adapter_cost.py
	$(VENV)/bin/python benchmarks/train_step.py
	$(VENV)/bin/python benchmarks/knowledge.py

$(VENV)/installed: requirements-test.txt requirements-train.txt constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
