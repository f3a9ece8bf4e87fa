# The two to start with: `make demo` and `make test`. Each does the set-up it needs; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Runs a command under the cgo settings for libtorch.
WITH := scripts/env.sh
# What `gopeft --version` says beside the release; empty where this is no git checkout.
COMMIT := $(shell git describe --always --dirty --exclude '*' 2>/dev/null)
# Packages at a time: each test process already computes on every core.
TEST_PROCESSES ?= 2

.PHONY: help setup xgboost build test test-fast check demo demo-llama bench goldens fuzz attack sbom clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## check the tools and fetch libtorch (CUDA=1: with what a GPU needs; LIBTORCH=/path: use that one)
	@scripts/setup.sh

build: setup ## build bin/gopeft
	@$(WITH) go build -ldflags '-X main.builtFrom=$(COMMIT)' -o bin/gopeft ./cmd/gopeft

test: setup ## run the tests
	$(WITH) go test -p $(TEST_PROCESSES) -timeout 20m ./...

test-fast: ## run the tests of the packages without libtorch; needs Go alone
	@scripts/test-fast.sh

check: setup ## the gate that every change passes: all that scripts/check.sh lists, the race detector last
	@scripts/check.sh

xgboost: ## fetch XGBoost's library (5.6 MB), for --classifier xgboost
	@scripts/setup/xgboost.sh

demo: build ## fetch a model and movie reviews, compare the ways to fine-tune on them: runs/demo
	@scripts/demo.sh

demo-llama: build ## fetch a small LLaMA model and let it write
	@scripts/demo-llama.sh

bench: setup ## run the Go benchmarks
	$(WITH) go test -p 1 -run '^$$' -bench . -benchmem -timeout 60m ./...

goldens: ## make the test fixtures anew with the Python implementations (pinned versions, in their own environment)
	@scripts/goldens.sh

fuzz: setup ## run every fuzz target for FUZZTIME (30s)
	@$(WITH) scripts/fuzz.sh

attack: build ## attack bin/gopeft for SECONDS (3600) with damaged files, kills, faults and wrong uses, from SEED (1)
	go run ./scripts/attack --seconds $(or $(SECONDS),3600) --seed $(or $(SEED),1)

sbom: setup ## write what a release is made of, with licences, as CycloneDX has it: bin/gopeft.cdx.json
	@mkdir -p bin
	@scripts/sbom.sh bin/gopeft.cdx.json

clean: ## remove what was built and what the demos ran (the fetched things in GOPEFT_HOME stay)
	rm -rf bin runs/demo runs/demo-data runs/demo-llama runs/demo-llama-data
