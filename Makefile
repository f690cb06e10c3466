# Everything starts here: `make help`. README.md, "Two commands", says what the system has to have.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
PY := $(VENV)/bin/python
# A stamp is written when its step has ended well, so a killed install is done again and a finished one is not.
STAMPS := $(VENV)/stamps
INSTALL := tools/install.sh $(VENV)
ARGS ?=

PACKAGE_FILES := setup.py setup.cfg pyproject.toml package.xml constraints.txt $(wildcard launch/* config/* resource/*)
MSGS_FILES := $(shell find monet_perception_msgs -type f -not -path '*/build/*')

# With ROS sourced, its own rclpy and colcon are used; without, PyPI's wheels and pip.
ifdef ROS_DISTRO
include tools/with_ros.mk
else
include tools/without_ros.mk
endif

##@ Use

demo: $(STAMPS)/demo ## Decompose the shipped clip in three real ROS nodes; writes a video and a picture (ARGS="--loop --show")
	$(WITH_ROS) $(DEMO) $(ARGS)

msgs: $(STAMPS)/msgs ## Build and install the messages, monet_perception_msgs

##@ Work on it

# A file's tests stay in one process, as they share nodes that are slow to start.
test: $(STAMPS)/test ## Run the tests and print their coverage (ARGS="test/test_tracking.py -k gap")
	$(WITH_ROS) $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --cov --cov-report=term $(ARGS)

lint: $(STAMPS)/test ## Check style and types: ruff, mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMPS)/test ## Format the code and mend what ruff can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(STAMPS)/test ## Build the docs into site/
	$(PY) -m mkdocs build --strict

venv: $(STAMPS)/test ## Install all that development needs into .venv

constraints: $(STAMPS)/test ## Write constraints.txt anew, from the versions in .venv
	$(PY) tools/constraints.py > constraints.txt.new && mv constraints.txt.new constraints.txt

##@ Clear up

clean: ## Remove what builds and tests leave, but not .venv
	rm -rf build install log dist *.egg-info monet_perception_msgs/build .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv as well
	rm -rf $(VENV)

help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: demo msgs test lint format docs venv constraints clean distclean help
