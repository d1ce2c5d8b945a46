# Every command of the README is a target here. What each needs it installs; see auto/setup.

MODULE = ngx_worker_manager_module.so

.PHONY: run build test check bench setup-build setup-check setup-test setup-test-asan setup-bench \
	test-module hooks chaos chaos-hooks dynamic static other patched debian test-asan unit model mistakes fuzz loom clean

# The demo: nginx on 127.0.0.1:8080, each event in the terminal.
run: build
	exec nginx/demo/run

# objs/nginx and objs/ngx_worker_manager_module.so; with NGINX_SOURCE_DIR or NGINX_BUILD_DIR set,
# the module for that nginx only.
build: setup-build
	auto/build objs

# Everything. T=t/lifecycle runs only that folder, T=t/lifecycle/010-timeline.t only that suite.
test: setup-test build test-module hooks chaos-hooks
ifdef T
	$(if $(filter t/lua%,$(T)),$(MAKE) --no-print-directory lua)
	auto/prove $(T)
else
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target dynamic static other patched lua unit model loom
	auto/prove t
endif

# The tests of the crates. rustdoc would look for the tokens of a make that runs several targets.
unit:
	MAKEFLAGS= cargo test --locked --workspace

# Every order in which a small node can act and be killed, with the laws checked in each state, and random
# histories of a larger one.
model:
	cargo test --locked -p roster --features failpoints --test model --test walks -- --test-threads 1

# Mistakes planted in copies of the roster, each of which one of those searches has to find. M=07-reservation-ignored
# plants only that.
mistakes:
	auto/mistakes $(M)

# What is read without the lock, in the orders that the memory model allows with at most two preemptions,
# for 4 seconds each at most. A build of its own, since loom's atomics are not those of a zone.
loom:
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-target}/loom" \
		cargo test --locked -p roster --test loom --test loom_held

# Random tables and texts for the roster, random requests, and random configurations, for about SECONDS
# each. SEED chooses another run.
fuzz: setup-test build test-module hooks
	FUZZ_SECONDS=$(or $(SECONDS),60) FUZZ_SEED=$(or $(SEED),1) \
		cargo test --locked -p roster --test fuzz -- --nocapture --test-threads 2
	FUZZ_SECONDS=$(or $(SECONDS),60) FUZZ_SEED=$(or $(SEED),1) \
		cargo test --locked -p status --test fuzz -- --test-threads 2
	FUZZ_SECONDS=$(or $(SECONDS),60) FUZZ_SEED=$(or $(SEED),1) auto/prove -v t/conf/020-conf-fuzz.t

# The module with failpoints in it, for the tests.
test-module: setup-build
	auto/build objs/test --features failpoints

# The example hook library, as a user would build it.
hooks: objs/hooks.so
objs/hooks.so: nginx/hooks.c nginx/ngx_worker_manager.h
	mkdir -p objs
	cc -shared -fPIC -Wall -Wextra -Werror -o $@ nginx/hooks.c

# A real nginx under chaos for SECONDS, checked from outside; the same SEED does the same again. Under the
# sanitizers: CHAOS_SECONDS=300 CHAOS_SEEDS="1 2" make test-asan T=t/lifecycle/140-chaos.t.
chaos: setup-test build test-module chaos-hooks
	exec chaos/run $(or $(SECONDS),60) $(SEED)

# What chaos/ loads into nginx and has it run.
chaos-hooks: objs/chaos/hook.so objs/chaos/hook objs/chaos/clock.so
objs/chaos/%.so: chaos/%.c nginx/ngx_worker_manager.h
	mkdir -p objs/chaos
	cc -O2 -shared -fPIC -Wall -Wextra -Werror -o $@ $<
objs/chaos/hook: chaos/hook.c
	mkdir -p objs/chaos
	cc -O2 -Wall -Wextra -Werror -DPROGRAM -o $@ $<

# Through nginx's ./configure --add-dynamic-module and --add-module; `other` and `patched` are nginx
# that the module was not built for.
dynamic static other patched: setup-build
	auto/with-nginx $@

# For the nginx that Debian packages.
debian: setup-build
	auto/debian

# The suites with nginx and the module under AddressSanitizer, LeakSanitizer and UBSan, chaos included, and
# 1,000 reloads without them, for the memory. Not those of the Lua library, which run on Debian's nginx, one
# of them under valgrind, nor t/build/010-build.t, whose builds are others and which is skipped.
# T=t/lifecycle/010-timeline.t runs only that.
test-asan: setup-test-asan build test-module hooks chaos-hooks
	auto/asan
ifdef T
	SANITIZERS=1 auto/prove $(T)
else
	$(MAKE) --no-print-directory debian lua
	SANITIZERS=1 auto/prove t
	WORKER_MANAGER_RELOADS=1000 auto/prove t/lifecycle/100-reloads.t
endif

.PHONY: lua test-matrix
# The same with nginx's Lua module, for the suites of the Lua library.
lua: debian
	auto/lua

# The suites on other versions of nginx: the packages of newer Debian suites, with their Lua module, and
# builds from source, debug or not, dynamic or static. All of it takes an hour. NGINX_1_30=file.tar.xz
# is for a mirror that lacks the source of sid.
test-matrix: setup-test debian
	auto/matrix trixie
	auto/matrix sid
	auto/versions bookworm trixie vendored $(or $(NGINX_1_30),sid)

# By the interpreter that they name.
SHELL_SCRIPTS = $(shell grep -lE '^\#!.*[/ ](ba)?sh$$' .ci/run auto/*)
PERL_SCRIPTS = $(shell grep -lE '^\#!.*[/ ]perl$$' auto/* bench/run chaos/run nginx/demo/run)

# What can be said of the code without running it.
check: setup-check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --workspace --all-targets --features failpoints -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --workspace --document-private-items
	auto/imports
	shellcheck $(SHELL_SCRIPTS)
	perlcritic --noprofile --quiet --severity 5 $(PERL_SCRIPTS) t/lib chaos/lib bench/lib
	luacheck --quiet --no-color --std ngx_lua lua
	auto/licences
	auto/deny
	auto/mistakes --check
	auto/msrv

bench: setup-bench build hooks lua
	exec bench/run

setup-build:
	@auto/setup build
setup-check:
	@auto/setup check
setup-test:
	@auto/setup test
setup-test-asan:
	@auto/setup test-asan
setup-bench:
	@auto/setup bench

clean:
	rm -rf objs build target
