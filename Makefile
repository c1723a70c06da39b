# Needs Python 3.11 or newer and make, nothing else: everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
DEMO_OUT ?= demo_resegeo

.PHONY: demo test lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tested: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.linted: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[lint]'
	touch $@

demo: $(VENV)/.installed
	@echo "Segmenting examples/demo/sentinel2.tif by the words of examples/demo/classes.yml ..."
	@$(BIN)/python -m resegeo_cli segment examples/demo/sentinel2.tif --prompts examples/demo/classes.yml -o $(DEMO_OUT) --overwrite
	@echo "Look at $(DEMO_OUT)/sentinel2.png, or open $(DEMO_OUT)/sentinel2.gpkg and sentinel2.classes.tif in QGIS."

test: $(VENV)/.tested
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.linted
	$(BIN)/ruff check resegeo cli tests examples
	$(BIN)/ruff format --check resegeo cli tests examples
	$(BIN)/mypy resegeo cli

clean:
	rm -rf $(VENV) $(DEMO_OUT) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
