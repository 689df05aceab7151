# Nicknames: every target is a Snakemake target or an `imprint` command, and holds no logic.

PYTHON ?= python3
CORES ?= all
PROFILE ?= default
RUN := .venv/bin/python -m
IMPRINT := .venv/bin/imprint

OPTIONS := $(if $(IDENTITY),"identity=$(IDENTITY)") $(if $(SCALE),"scale=$(SCALE)") \
  $(if $(PROVIDER),"provider=$(PROVIDER)") $(if $(MODEL),"provider_model=$(MODEL)") \
  $(if $(URL),"base_url=$(URL)") $(if $(COUNT),"conversations=$(COUNT)") \
  $(if $(BUDGET),"budget_usd=$(BUDGET)") $(if $(SEED),"seed=$(SEED)")
# `--cores` would cap what jobs get elsewhere: in a profile with an executor it counts for this machine.
ELSEWHERE := $(shell grep -s '^executor:' profiles/$(PROFILE)/config.yaml)
LIMIT := $(if $(ELSEWHERE),$(if $(filter-out all,$(CORES)),--local-cores $(CORES)),--cores $(or $(CORES),''))
WHERE := $(LIMIT) --workflow-profile profiles/$(PROFILE) \
  $(if $(CONFIG),--configfile $(CONFIG)) $(if $(strip $(OPTIONS)),--config $(OPTIONS))
READY := .venv/.ready

.PHONY: help identity plan chat ask report summary test check format adopt verify schemas lock bench unlock
.PHONY: serve export push deploy undeploy modal-smoke modal-local

help: ## Show this list
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n%s\n' "With identity and plan: IDENTITY=file.yaml SCALE=tiny PROFILE=default CORES=2" \
	  "and, to pay for conversations: PROVIDER=openrouter MODEL=name COUNT=1000 BUDGET=5 (USD)"

##@ Make a model that knows who it is
identity: $(READY) ## The whole pipeline: whatever is out of date, and nothing else
	@$(IMPRINT) identity -- $(WHERE)

plan: $(READY) ## What `make identity` would do, why, and how long it would take
	@$(IMPRINT) plan -- $(WHERE)

##@ Use it
chat: $(READY) ## Talk to the model
	@$(IMPRINT) chat

serve: $(READY) ## A page to talk to it in the browser, and an API like OpenAI's: PORT=8000
	@$(IMPRINT) serve $(if $(PORT),--port $(PORT))

ask: $(READY) ## One question: make ask Q="Who are you?"
	@$(IMPRINT) ask "$(or $(Q),Who are you?)"

summary: $(READY) ## What the model knows about itself, as a table
	@$(IMPRINT) summary

report: $(READY) ## The whole story, with pictures
	@$(IMPRINT) run -- results/report/report.md $(WHERE)
	@$(IMPRINT) run -- --report results/report/report.html $(WHERE)
	@$(IMPRINT) report

export: $(READY) ## A folder for transformers and the Hugging Face hub: results/export
	@$(IMPRINT) run -- export $(WHERE)
	@echo "results/export: for transformers, as it is; for the Hugging Face hub: make push REPO=owner/name"

push: export ## Upload it, private, with the token in HF_TOKEN: make push REPO=owner/name
	@$(IMPRINT) push "$(REPO)"

##@ On GPUs of modal.com: docs/modal.md. First: make plan PROFILE=modal SCALE=d20
modal-smoke: $(READY) ## Is the account ready? An image, a volume, a function, for under a cent
	@$(RUN) snakemake_executor_plugin_modal.smoke

modal-local: $(READY) ## Watch it without an account: `make identity` on a stand-in for Modal
	@PYTHONPATH=tests $(RUN) modal_local $(if $(CONFIG),--configfile $(CONFIG))

deploy: $(READY) ## Put the chat on Modal; it costs nothing while nobody talks to it
	@$(IMPRINT) deploy -- --workflow-profile profiles/modal

undeploy: $(READY) ## Take it away again
	@$(IMPRINT) undeploy -- --workflow-profile profiles/modal

##@ Look after results
verify: $(READY) ## Compare every result with the hashes in its manifest
	@$(IMPRINT) verify

adopt: $(READY) ## Take over results/ from another machine without building it again
	@$(IMPRINT) adopt -- $(WHERE)

unlock: $(READY) ## Open a folder that a killed run has left locked
	@$(IMPRINT) run -- --unlock $(WHERE)

##@ Work on imprint
# Side by side, whole files: most tests wait for processes of their own.
test: $(READY) ## All tests
	@$(RUN) pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

check: $(READY) ## Format, lint and types
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	.venv/bin/snakefmt --check Snakefile rules
	$(RUN) snakemake --lint
	$(RUN) mypy

format: $(READY) ## Format everything
	$(RUN) ruff format .
	$(RUN) ruff check --fix .
	.venv/bin/snakefmt Snakefile rules

schemas: $(READY) ## Write workflow/schemas and config/README.md anew, after a change of settings
	@$(IMPRINT) schemas

bench: $(READY) ## Measure: make bench AREA=training
	@$(RUN) benchmarks.$(or $(AREA),training)

lock: $(READY) ## Write requirements.txt anew from what is installed
	@$(RUN) pip freeze --exclude-editable | grep -Ev '^(nvidia-|cuda-|triton==)|@' \
	  | sed -E 's/\+[a-z0-9.]+$$//' > requirements.txt

# Once, and again when the pins change. The tests of the version go first, so that an old Python
# is told from a broken download.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "error: imprint needs Python 3.11 or newer. Name one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Setting up .venv with the pinned packages: once, some minutes, mostly PyTorch ..."
	@$(PYTHON) -m venv .venv
	@$(RUN) pip install -qq --disable-pip-version-check --requirement requirements.txt
	@$(RUN) pip install -qq --disable-pip-version-check --no-deps --editable .
	@touch $@
	@echo "Set up."
