# Needs Python 3.11 or newer and make, nothing else: everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
DEMO_OUT ?= demo_resegeo

# What is slow and has a quick test beside it is left out: make test-slow.
.PHONY: demo test test-slow lint clean

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
	@echo
	@echo "Look at $(DEMO_OUT)/sentinel2.png, or open $(DEMO_OUT)/sentinel2.gpkg and sentinel2.classes.tif in QGIS."
	@echo "Other words for the same scene, in seconds (edit a copy of examples/demo/classes.yml first):"
	@echo "  $(BIN)/resegeo segment $(DEMO_OUT)/sentinel2.store.zarr --prompts my_classes.yml"
	@echo "Your own scene:  $(BIN)/resegeo segment scene.tif --prompts my_classes.yml   (or activate $(VENV) first)"

test: $(VENV)/.tested
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.tested
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: $(VENV)/.linted
	$(BIN)/ruff check resegeo cli tests examples
	$(BIN)/ruff format --check resegeo cli tests examples
	$(BIN)/mypy resegeo cli

clean:
	rm -rf $(VENV) $(DEMO_OUT) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
