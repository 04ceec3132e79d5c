# uv lives in .uv/, the tools in .venv/: nothing is asked of the machine but Python.
UV := .uv/bin/uv
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.uv/bin:$(PATH)
# The tests start Python a thousand times: it shall not compile all libraries each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test weekly quick lint format golden bench drill lock release servers

help: ## List the commands
	@sed -n 's/^\([a-z0-9_-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

demo: .venv/ready servers ## Render the defaults, start the service, create and read an order
	@python -m tools.demo

# Two at a time for each processor: half of the time they wait for their services.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 2)))

test: .venv/ready servers lint ## Everything: each rendering, each class booted, each update
	pytest --numprocesses $(WORKERS) --dist worksteal -m "not weekly"

weekly: .venv/ready servers lint ## Everything, each driver on each newer Python, each part of the bench
	pytest --numprocesses $(WORKERS) --dist worksteal

quick: .venv/ready ## What needs no server, in a minute
	pytest --numprocesses $(WORKERS) --dist worksteal -m "not boot"

lint: .venv/ready ## Check style and types of the template's own code
	ruff check
	ruff format --check
	mypy

format: .venv/ready ## Fix its style
	ruff check --fix
	ruff format

golden: .venv/ready ## Write the golden renderings anew; then review the diff
	python -m tools.golden

bench: .venv/ready servers ## Measure the service beside others, in ratios; PART=clients for one part
	python -m benchmarks.bench $(PART)

drill: .venv/ready servers ## Provoke six faults under Prometheus, and draw the dashboard by Chromium
	@python -m tools.drill template/docs/dashboard.png

# Not uv.lock, which would carry the address of a registry into every clone.
lock: $(UV) ## Write requirements.txt anew from pyproject.toml, and the names to refuse
	$(UV) pip compile --quiet --upgrade --universal --generate-hashes --group dev \
		--custom-compile-command "make lock" --output-file requirements.txt pyproject.toml
	$(MAKE) .venv/ready
	python -m tools.reserved_names

release: .venv/ready servers ## Test the updates, then tag VERSION=1.2.3 and record it
	python -m tools.release $(VERSION)

servers:
	@sh tests/support/servers.sh

.venv/ready: requirements.txt | $(UV)
	$(UV) venv --quiet --clear .venv
	$(UV) pip sync --quiet requirements.txt
	@touch $@

$(UV):
	@python3 -c "import ensurepip" 2>/dev/null || sh tests/support/servers.sh python3-venv
	python3 -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv
