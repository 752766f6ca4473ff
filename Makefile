# The front door: `make help`. Meson does the work (meson.build); this file names the usual ways in.
BUILD  ?= build
PREFIX ?= /usr/local
TESTS  ?=
SECONDS ?= 600

NINJA := ninja -C $(BUILD)

.PHONY: all programs setup demo check check-vm check-rdma-core check-programs fuzz bench install clean help

all: $(BUILD)/build.ninja
	@$(NINJA)

$(BUILD)/build.ninja:
	@meson setup --prefix=$(PREFIX) $(MESON_FLAGS) $(BUILD)

# What runs, without the tests.
programs: $(BUILD)/build.ninja
	@$(NINJA) src/cli/rbond src/daemon/rbondd src/verbs/librbond.so bench/udp_pong

setup:
	@tools/setup

demo: setup
	@$(MAKE) --no-print-directory programs
	@lab/demo $(BUILD)

# TESTS="rc_loss cuts" or TESTS="--suite hca" narrows it; CHECK_FLAGS go to `meson test`. Time limits are for
# hangs: a busy machine has four times as long.
check: setup
	@$(MAKE) --no-print-directory all
	@meson test -C $(BUILD) --no-rebuild --print-errorlogs -t 4 $(CHECK_FLAGS) $(TESTS)

# The kernel's rxe as the peer, in a guest under QEMU's emulation. ONLY=REGEX narrows it.
check-vm:
	@tools/setup --vm
	@$(MAKE) --no-print-directory all
	@test/vm/interop $(BUILD)/src/cli/rbond; interop=$$?; \
	test/vm/bond $(BUILD)/src/cli/rbond && exit $$interop

# rdma-core's own tests: on a plain port, on a bond, between two hosts, and what is for one vendor only.
check-rdma-core: setup
	@$(MAKE) --no-print-directory all
	@for how in plain bond two vendor; do \
		echo "== $$how"; test/system/rdma_core $(BUILD)/src/cli/rbond --$$how || failed=1; done; [ -z "$$failed" ]

# Whole suites of programs, and once more with a member of the bond cut every 2 s.
check-programs:
	@tools/setup --programs
	@$(MAKE) --no-print-directory all
	@for how in '' --cuts; do for suite in ucx fabric mpi qperf; do \
		test/system/$$suite $(BUILD)/src/cli/rbond $$how || failed=1; done; done; \
	for how in bond two; do test/system/rdma_core $(BUILD)/src/cli/rbond --$$how --cuts || failed=1; done; \
	[ -z "$$failed" ]

# Every fuzzer for ten minutes, two at a time; SECONDS=60 for less.
fuzz:
	@tools/setup --ci
	@[ -e $(BUILD)-fuzz/build.ninja ] || CC=clang meson setup -Dfuzz=true $(BUILD)-fuzz >/dev/null
	@ninja -C $(BUILD)-fuzz fuzzers
	@test/fuzz/run $(BUILD)-fuzz $(SECONDS)

bench: setup
	@$(MAKE) --no-print-directory programs
	@bench/run $(BUILD)

# DESTDIR is honoured by meson; the prefix may differ from the one of the first `make`.
install: $(BUILD)/build.ninja
	@meson configure -Dprefix=$(PREFIX) $(BUILD)
	@$(NINJA)
	@meson install -C $(BUILD) --no-rebuild

clean:
	@rm -rf $(BUILD)

help:
	@echo 'make            build into ./build (BUILD=dir for another, CC=clang for another compiler)'
	@echo 'make setup      install the Debian or Ubuntu packages that are missing, nothing else'
	@echo 'make demo       two hosts, a bond of two links, RDMA programs, and a cable pulled'
	@echo 'make check      every test (TESTS="--suite hca" for one layer)'
	@echo 'make check-vm   the kernel'"'"'s own RoCE as the peer, in a virtual machine'
	@echo 'make check-rdma-core  all of the tests that rdma-core has of its own'
	@echo 'make check-programs   UCX, libfabric, Open MPI, qperf; once more with cables pulled'
	@echo 'make fuzz       every fuzzer for SECONDS=600 (clang)'
	@echo 'make bench      RDMA beside TCP and raw UDP on the same link'
	@echo 'make install    PREFIX=/usr/local DESTDIR='
	@echo 'make clean      remove ./build'
