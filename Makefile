# Two commands set everything up: `make ground` and `make test`. Both build .venv once and reuse it.
#
# pip's own variables apply (PIP_INDEX_URL, ...). Packages that are already in .venv are kept, PyTorch too.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PHOTO ?= $(shell $(BIN)/python -c "from importlib.resources import files; print(files('skimage.data') / 'astronaut.png')")
PHRASES ?= 'a woman in an orange suit' 'a smiling woman' 'an orange suit' 'a flag'

.PHONY: ground page test test-slow fuzz kills disk audit sbom lock lint docs pictures clean

# grounds four phrases in a photo that scikit-image ships
ground: .venv/installed
	$(BIN)/grounding '$(PHOTO)' $(PHRASES)

# serves the page on http://127.0.0.1:8000
page: .venv/demo
	$(BIN)/grounding serve

# the quick tests: about five minutes on two cores
test: .venv/dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# the slow proofs, which make test leaves out
test-slow: .venv/dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m slow

# gives changed inputs to each reader for FUZZ_SECONDS of CPU time; each must be read, or refused in one line
FUZZ_SECONDS ?= 60
fuzz: .venv/dev
	OMP_NUM_THREADS=1 nice -n 15 $(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)

# kills grounding, sharding, training and caching at random moments; each file is whole or absent, and nothing is lost
KILLS ?= 200
kills: .venv/dev
	OMP_NUM_THREADS=1 nice -n 15 $(BIN)/python tests/kills/kill_loop.py --times $(KILLS)

# fills the disk at random moments of the same tasks; each ends with one line, and nothing is lost
disk: .venv/dev
	OMP_NUM_THREADS=1 nice -n 15 $(BIN)/python tests/kills/full_disk.py

# the versions of a deployment: writes them as they are installed, looks for known weaknesses, lists what is inside
lock: .venv/dev
	$(BIN)/python .ci/lock.py demo parquet shards > requirements.lock

audit:
	$(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --no-deps --disable-pip -r requirements.lock

sbom:
	$(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install --quiet cyclonedx-bom
	.venv-audit/bin/cyclonedx-py requirements --pyproject pyproject.toml -o sbom.json requirements.lock

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# builds the documentation into site/
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# the pictures of README.md and docs/
pictures: ground
	for method in mwp c-mwp; do $(BIN)/grounding layers '$(PHOTO)' 'an orange suit' 'a flag' \
	    attention=$$method tagger=googlenet name=$$method; done
	$(BIN)/grounding methods '$(PHOTO)' 'an orange suit' 'a flag' 'a smiling woman' experiment=paper
	$(BIN)/grounding methods '$(PHOTO)' woman smiling suit flag 'step.methods=[c-mwp]' experiment=paper name=words
	$(BIN)/python docs/pictures.py

# what grounding itself needs
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

# and what the page (demo), the tests, lint and the documentation (dev) add
.venv/demo .venv/dev: .venv/installed
	$(PIP) -e '.[$(@F)]'
	touch $@

clean:
	rm -rf .venv .venv-audit sbom.json runs site
