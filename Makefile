# The two to start with: `make demo` and `make test`. Each does the set-up it needs; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Runs a command under the cgo settings for libtorch.
WITH := scripts/env.sh
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Packages at a time: each test process already computes on every core.
TEST_PROCESSES ?= 2

.PHONY: help setup build test check demo demo-llama bench goldens fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## check the tools and fetch libtorch (CUDA=1: with what a GPU needs; LIBTORCH=/path: use that one)
	@scripts/setup.sh

build: setup ## build bin/gopeft
	@$(WITH) go build -ldflags '-X main.version=$(VERSION)' -o bin/gopeft ./cmd/gopeft

test: setup ## run the tests
	$(WITH) go test -p $(TEST_PROCESSES) -timeout 20m ./...

check: setup ## the gate: formatting, vet, staticcheck, layering, words, shell scripts, tests with the race detector
	@scripts/check.sh

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

clean: ## remove what was built and what the demos ran (the fetched things in GOPEFT_HOME stay)
	rm -rf bin runs/demo runs/demo-data runs/demo-llama runs/demo-llama-data
