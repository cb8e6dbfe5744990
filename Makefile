# Every target works alone on a fresh clone with Python 3.11+, git and make, and nothing else installed.
# The first one that runs makes .venv from the pins in requirements/; after that nothing is installed again.

VENV := .venv
PYTHONS := python3 python3.13 python3.12 python3.11
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
ARGS ?=
PEERS := roapi sail
SITE := NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs --quiet build --strict

.PHONY: help demo serve test check docs bench soak dist pins clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    play the story: hand-off, read, pin, three cuts later the same bytes again"
	@echo "make serve   a demo server that stays up, with its data in demo-data/"
	@echo "make test    run all tests (ARGS=\"-m 'not slow'\" for the quick ones)"
	@echo "make check   format, lint, types, layering, what is in deploy/, the documentation's links"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   measure beside others (minutes; ARGS=--quick for less)"
	@echo "make soak    twenty minutes of everything that can fail, at once (ARGS=\"--minutes 5\" for less)"
	@echo "make dist    wheel, source and bill of materials in dist/; the wheel must play the story in an empty environment"
	@echo "make pins    renew requirements/ from pyproject.toml (needs uv)"
	@echo "make clean   remove .venv and caches"

demo: $(VENV)/run.stamp
	@$(BIN)/datom-flight-server demo --story

serve: $(VENV)/run.stamp
	@exec $(BIN)/datom-flight-server demo --dir demo-data

# Files are shared out to two processes, the long ones first come.
test: $(VENV)/test.stamp
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/check.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python deploy/check.py
	$(SITE)

docs: $(VENV)/check.stamp
	$(SITE)

bench: $(VENV)/bench.stamp $(PEERS:%=$(VENV)/%.peer)
	$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/test.stamp
	PYTHONPATH=tests $(BIN)/python -m support.soak $(ARGS)

# The wheel is made of the source archive, which so proves to be whole.
dist: $(VENV)/dist.stamp
	@rm -rf dist build/release
	$(BIN)/hatchling build --target sdist --directory dist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz
	$(BIN)/python -m venv build/release
	$(PIP) --python build/release install --require-hashes -r requirements/run.txt
	$(PIP) --python build/release install --no-deps dist/*.whl
	cd build && release/bin/datom-flight-server demo --story
	$(BIN)/cyclonedx-py environment build/release --pyproject pyproject.toml --output-reproducible --validate \
	    --output-file dist/datom-flight.cdx.json

$(VENV)/pyvenv.cfg:
	@for python in $(PYTHONS); do \
	    $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	    exec $$python -m venv $(VENV); \
	done; \
	echo "datom-flight needs Python 3.11 or newer with its venv module (Debian and Ubuntu: apt install python3-venv)" >&2; \
	exit 1

$(VENV)/%.stamp: requirements/%.txt pyproject.toml $(VENV)/pyvenv.cfg
	@echo "installing requirements/$*.txt into $(VENV) (once; a minute or two)" >&2
	@$(PIP) install --require-hashes -r requirements/$*.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# What is measured beside us is not to be had everywhere, and missed by nobody but the benchmark.
$(VENV)/%.peer: requirements/%.txt $(VENV)/bench.stamp
	@$(PIP) install --require-hashes -r $< || echo "$* cannot be installed here: measured without it" >&2
	@touch $@

PIN := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --quiet
COMPILE := $(PIN) pyproject.toml requirements/build.in --extra server

# Where sets meet they have the same versions, so one environment serves all targets.
pins:
	$(COMPILE) --extra files --group test --group deploy --group check --output-file requirements/check.txt
	$(COMPILE) --extra files --group test --group deploy --constraint requirements/check.txt --output-file requirements/test.txt
	$(COMPILE) --constraint requirements/check.txt --output-file requirements/run.txt
	$(COMPILE) --group dist --constraint requirements/check.txt --output-file requirements/dist.txt
	$(COMPILE) --group bench --constraint requirements/check.txt --output-file requirements/bench.txt
	for peer in $(PEERS); do $(PIN) --group pyproject.toml:$$peer --output-file requirements/$$peer.txt; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
