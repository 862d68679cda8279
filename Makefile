# A fresh clone needs Python 3.11 or later, nothing else: every target makes the environment it runs in.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test test-slow test-core test-peers check docs clean

demo: $(VENV)/bench  ## the main job on handwritten digits: a table, and runs/demo/report.html
	$(VENV)/bin/isonomy compare --data digits --methods ew,uw,imtl,db_mtl --seeds 3 --jobs 2 --out runs/demo

test: $(VENV)/dev  ## all fast tests, a process a core
	$(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile -m "not slow and not peers"

test-slow: $(VENV)/dev  ## the tests that take minutes
	$(VENV)/bin/python -m pytest -m slow

test-core: $(VENV)-core/done  ## the core's tests where torch is all there is
	$(VENV)-core/bin/python -m pytest tests/test_balancer.py tests/test_catalogue.py tests/engine tests/test_step.py tests/test_testing.py \
		tests/diagnostics/test_monitor.py tests/diagnostics/test_probe.py tests/diagnostics/test_findings.py

test-peers: $(VENV)/peers  ## against TorchJD and LibMTL
	$(VENV)/bin/python -m pytest tests/peers

docs: $(VENV)/bench  ## the methods' pages, from the catalogue and the docstrings
	$(VENV)/bin/python docs/generate.py

check: $(VENV)/dev  ## lint, format, strict types and the import graph
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest tests/test_imports.py

clean:  ## the environments; runs/ stays
	rm -rf $(VENV) $(VENV)-core build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/bench: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[bench]'
	touch $@

$(VENV)/dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[bench,dev]'
	touch $@ $(VENV)/bench

# LibMTL wants a torchvision that its weighting methods, which are all that is compared, do not need.
$(VENV)/peers: $(VENV)/dev
	$(PIP) --editable '.[bench,dev,peers]'
	$(PIP) --no-deps LibMTL==1.1.5
	touch $@

$(VENV)-core/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-core
	$(subst $(VENV)/,$(VENV)-core/,$(PIP)) --editable . pytest hypothesis
	touch $@
