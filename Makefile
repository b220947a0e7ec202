# Two commands on a fresh machine: `make ground` and `make test`. Both build .venv once and reuse it.
PYTHON ?= python3
BIN := .venv/bin
PHOTO ?= $(shell $(BIN)/python -c "from importlib.resources import files; print(files('skimage.data') / 'astronaut.png')")
PHRASES ?= a woman in an orange suit, a smiling woman, an orange suit, a flag
# the paper's formula and a lower gamma: a person prefers whole things to the many small boxes that recall rewards
METHOD ?= experiment=paper gamma=0.4

.PHONY: ground test lint picture clean

ground: .venv/installed
	$(BIN)/python -m grounding image=$(PHOTO) 'phrases=[$(PHRASES)]' $(METHOD)

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the README's pictures
picture: ground
	$(BIN)/python -c "from PIL import Image; [Image.open(f'runs/ground/{n}.png').save(f'docs/{n[3:]}.jpg', quality=85) for n in ('02-a-smiling-woman', '03-an-orange-suit')]"

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
