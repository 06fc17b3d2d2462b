# make demo: train on a real data set for some minutes and translate its test folder
# make test: run the tests, and say which are skipped and why        make lint: run the linter
# All of them make .venv first; PYTHON chooses the interpreter that it is made of.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/demo.done
	$(BIN)/python datasets/earth.py topo2relief
	sh scripts/demo.sh $(BIN)/python

test: .venv/dev.done
	$(BIN)/python -m pytest -rs

lint: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv

.venv/base.done: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# Their files name each other, so all are looked at.
.venv/%.done: requirements-%.txt $(wildcard requirements*.txt) .venv/base.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-$*.txt
	touch $@
