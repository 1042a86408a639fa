# make test   all checks: style, unit tests, and the tests in a real ComfyUI and browser where there is one
# make demo   trains, measures and shows an adapter in a small world; minutes on a CPU
# make bench  the measurements quoted in the README
# make small-world  the tables of RESULTS.md; hours, and goes on where it was stopped
# make pictures  the templates, their pictures and those of the help pages, from a real ComfyUI

PYTHON ?= python3
VENV := .venv

.PHONY: test demo bench small-world pictures clean

test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m tests

demo: $(VENV)/installed
	$(VENV)/bin/python -m train demo

bench: $(VENV)/installed
	$(VENV)/bin/python benchmarks/adapter_cost.py
	$(VENV)/bin/python benchmarks/train_step.py
	$(VENV)/bin/python benchmarks/knowledge.py
	$(VENV)/bin/python benchmarks/surd_builder.py
	$(VENV)/bin/python benchmarks/llmdiff_cost.py

small-world: $(VENV)/installed
	$(VENV)/bin/python benchmarks/small_world.py

pictures: $(VENV)/installed
	$(VENV)/bin/python -m pictures

$(VENV)/installed: requirements-test.txt requirements-train.txt constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
