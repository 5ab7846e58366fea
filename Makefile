# pysock.h needs no building. This builds and runs what stands around it; `make help` lists it.

CFLAGS ?= -O2 -g
LDLIBS ?= -lbearssl -lpthread
WERROR ?= -Werror
PYSOCK_DIR ?= .
JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion

# Where Fedora and Homebrew keep a header that compilers do not find by themselves.
BEARSSL_H := $(firstword $(wildcard /usr/include/bearssl.h /usr/include/bearssl/bearssl.h \
    /opt/homebrew/include/bearssl.h /usr/local/include/bearssl.h))
BEARSSL_H := $(filter-out /usr/include/bearssl.h,$(BEARSSL_H))
DEP_CPPFLAGS := $(if $(BEARSSL_H),-I$(patsubst %/,%,$(dir $(BEARSSL_H))))
DEP_LDFLAGS := $(patsubst %/include/bearssl.h,-L%/lib,$(filter %/include/bearssl.h,$(BEARSSL_H)))

ALL_CPPFLAGS = -I$(PYSOCK_DIR) $(CPPFLAGS) $(DEP_CPPFLAGS)
ALL_LDFLAGS = $(LDFLAGS) $(DEP_LDFLAGS)
DEPEND = -MMD -MP -MT $@ -MF $@.d
QUIET = $(if $(V),,@echo '  CC  $@';)

# Large ones stand in apps/ and share cli.h. All are built in one folder: no name is there twice.
EXAMPLES := $(patsubst %.c,build/examples/%,$(notdir $(wildcard examples/*.c examples/apps/*.c)))
APPS_H := $(wildcard examples/apps/*.h)
TOOL_PROGRAMS := $(patsubst tools/%.c,build/tools/%,$(wildcard tools/*.c))
BENCH_OBJECTS := $(patsubst tests/bench/%.c,build/bench/%.o,$(wildcard tests/bench/*.c)) \
    build/bench/pysock_impl.o

# ---- tests: every program three times ----

# tests/TOPIC/test_NAME.c and tests/whitebox/whitebox_NAME.c; all are chosen by NAME alone.
TEST_SOURCES := $(wildcard tests/*/test_*.c tests/*/whitebox_*.c)
TEST_FOLDERS := $(sort $(dir $(TEST_SOURCES)))
ALL_TESTS := $(sort $(notdir $(basename $(TEST_SOURCES))))
TESTS = %
CHOSEN_TESTS = $(filter $(foreach t,$(TESTS),$(t) test_$(t) whitebox_$(t)),$(ALL_TESTS))
VARIANTS = plain asan tsan

FLAGS_plain = $(CFLAGS) $(WERROR)
FLAGS_asan = $(CFLAGS) -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
    -fno-sanitize-recover=all
FLAGS_tsan = $(CFLAGS) -O1 -g -fno-omit-frame-pointer -fsanitize=thread

# Not one of the three: the implementation, and it alone, sees macOS's manners.
FLAGS_macos-like = $(CFLAGS) $(WERROR) -DT_MACOS_LIKE
IMPL_FLAGS_macos-like = -include tests/support/macos_like.h
# White-box programs hold the implementation and call the system themselves: not these.
tests_of = $(filter $(if $(filter macos-like,$(1)),test_%,%),$(CHOSEN_TESTS))

all: examples

help:
	@echo 'make demo         install what is missing, build the demo and run it'
	@echo 'make examples     build/examples/NAME from each examples/NAME.c and examples/apps/NAME.c'
	@echo '                  (the default)'
	@echo 'make tools        build/tools/embed_ca, which turns CA certificates into a C header'
	@echo 'make install      pysock.h to PREFIX/include (/usr/local), pysock.pc for pkg-config to'
	@echo '                  LIBDIR/pkgconfig (PREFIX/lib), both below DESTDIR; make uninstall'
	@echo 'make test         all tests: plain, under AddressSanitizer+UBSan, under ThreadSanitizer'
	@echo 'make test-plain   one of the three; also test-asan and test-tsan; and test-macos-like, the'
	@echo '                  tests on an implementation that takes Linux for macOS'
	@echo '                  TESTS="NAME ..." runs tests/*/test_NAME.c and whitebox_NAME.c only'
	@echo 'make check        compile matrix, symbols, outline of the header, format, compile lines of'
	@echo '                  examples, and the small ones against each other'
	@echo 'make format       lets clang-format write the header, tests, examples and tools anew'
	@echo 'make mutants      changes lines of the header, in copies, one at a time: a test must notice'
	@echo '                  each; MUTANTS="NAME ..." chooses some of tests/mutants.txt'
	@echo 'make check-arch   the tests for another processor, ARCH=i386, s390x or armhf, by a cross'
	@echo '                  compiler and an emulator, on Debian; TESTS chooses other than its sample'
	@echo 'make bench        measure on loopback; the table is also written to build/bench.txt'
	@echo 'make limbo        judge the certificate chains in CASES (x509-limbo, a JSON object a line)'
	@echo 'make fuzz         each harness of tests/fuzz for FUZZ_SECONDS (10); needs clang'
	@echo 'make cpython      modules for CPython on pysock, in build/cpython/'
	@echo 'make check-cpython   its own tests on them: the exam in CPYTHON_EXAM, if it is there;'
	@echo '                  check-cpython-short runs a few without it, check-cpython-asan too, under'
	@echo '                  AddressSanitizer; bench-cpython measures'
	@echo 'make clean        remove build/'
	@echo
	@echo 'CC, CFLAGS, CPPFLAGS, LDFLAGS and LDLIBS may be given. V=1 shows the commands, WERROR= tolerates'
	@echo 'warnings in tests. Everything is built in build/.'

examples:
	@$(SETUP)
	@$(MAKE) --no-print-directory $(PARALLEL) build-examples

build-examples: $(EXAMPLES)

tools: $(TOOL_PROGRAMS)

demo:
	@$(SETUP)
	@$(MAKE) --no-print-directory $(PARALLEL) build/examples/demo
	@build/examples/demo

test:
	@$(SETUP) test
	@$(MAKE) --no-print-directory $(PARALLEL) $(VARIANTS:%=build-tests-%)
	@$(RUN_TESTS) $(foreach v,$(VARIANTS),$(CHOSEN_TESTS:%=build/$(v)/%))

test-plain test-asan test-tsan test-macos-like: test-%:
	@$(SETUP) $(if $(filter asan tsan,$*),test,plain)
	@$(MAKE) --no-print-directory $(PARALLEL) build-tests-$*
	@$(RUN_TESTS) $(patsubst %,build/$*/%,$(call tests_of,$*))

check:
	@$(SETUP) check
	@CC='$(CC)' CPPFLAGS='$(CPPFLAGS) $(DEP_CPPFLAGS)' LDFLAGS='$(ALL_LDFLAGS)' \
	    LDLIBS='$(LDLIBS)' PYSOCK_DIR='$(PYSOCK_DIR)' JOBS='$(JOBS)' tools/check.sh

format:
	@$(SETUP) format
	@PYSOCK_DIR='$(PYSOCK_DIR)' tools/check.sh --run list_formatted | \
	    xargs -P '$(JOBS)' -n 4 clang-format --fallback-style=none -i

mutants:
	@$(SETUP) test
	@CC='$(CC)' CPPFLAGS='$(CPPFLAGS) $(DEP_CPPFLAGS)' LDFLAGS='$(ALL_LDFLAGS)' LDLIBS='$(LDLIBS)' \
	    PYSOCK_DIR='$(PYSOCK_DIR)' JOBS='$(JOBS)' tools/mutants.sh $(MUTANTS)

check-arch:
	+@TIMEOUT='$(TIMEOUT)' tools/check-arch.sh '$(ARCH)' $(patsubst %,'%',$(filter-out \%,$(TESTS)))

bench:
	@$(SETUP)
	@$(MAKE) --no-print-directory $(PARALLEL) build/bench/bench
	@build/bench/bench $(BENCH_ARGS)

clean:
	rm -rf build

SETUP = CC='$(CC)' PYTHON='$(PYTHON)' CPPFLAGS='$(CPPFLAGS)' CFLAGS='$(CFLAGS)' \
    LDFLAGS='$(LDFLAGS)' LDLIBS='$(LDLIBS)' tools/setup.sh
RUN_TESTS = TIMEOUT='$(TIMEOUT)' tools/run-tests.sh
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))

# ---- rules ----

# Rewritten only when the flags change, so that what depends on it is built anew exactly then.
define write_flags
@mkdir -p $(@D)
@echo '$(1)' | cmp -s - $@ || echo '$(1)' >$@
endef

# A program that is the implementation's only user, with the one that is compiled already in its
# place: time is what three variants of all programs cost.
LINK_PROGRAM = @mkdir -p $(@D) && $(if $(V),,echo '  CC  $@' &&) \
    { echo '\#line 1 "$<"'; sed 's/^\#define PYSOCK_IMPLEMENTATION$$//' $<; }

# What two of the tests run is built as they are.
TOOLS_OF_EXAMPLES = $(addprefix examples/,http_download netcat port_scan udp_echo unix_fds)
TOOLS_OF_EXAMPLES_TLS = tools/embed_ca \
    $(addprefix examples/,https_get mutual_tls smtp_starttls sni_server tls_inspect)

vpath test_%.c $(TEST_FOLDERS)
vpath whitebox_%.c $(TEST_FOLDERS)

define variant_rules
build-tests-$(1): $$(patsubst %,build/$(1)/%,$$(call tests_of,$(1)))
	@$$(if $$(call tests_of,$(1)),:,echo \
	    'no test is named $$(TESTS); there are: $$(ALL_TESTS)' >&2; false)

build/$(1)/flags: always
	$$(call write_flags,$$(CC) $$(ALL_CPPFLAGS) $$(FLAGS_$(1)) $$(ALL_LDFLAGS) $$(LDLIBS))

build/$(1)/pysock_impl.o: tests/pysock_impl.c build/$(1)/flags
	$$(QUIET) $$(CC) -std=c99 $$(WARNINGS) $$(ALL_CPPFLAGS) $$(FLAGS_$(1)) $$(IMPL_FLAGS_$(1)) \
	    $$(DEPEND) -c $$< -o $$@

build/$(1)/test_%: test_%.c build/$(1)/pysock_impl.o build/$(1)/flags
	$$(QUIET) $$(CC) -std=gnu99 $$(WARNINGS) -Itests $$(ALL_CPPFLAGS) $$(FLAGS_$(1)) $$(DEPEND) $$< \
	    build/$(1)/pysock_impl.o -o $$@ $$(ALL_LDFLAGS) -lcmocka $$(LDLIBS) -lm

build/$(1)/examples/%: examples/%.c build/$(1)/pysock_impl.o
	$$(LINK_PROGRAM) | $$(CC) $$(WARNINGS) $$(ALL_CPPFLAGS) $$(FLAGS_$(1)) -x c - -x none \
	    build/$(1)/pysock_impl.o -o $$@ $$(ALL_LDFLAGS) $$(LDLIBS)

build/$(1)/examples/%: examples/apps/%.c build/$(1)/pysock_impl.o $(APPS_H)
	$$(LINK_PROGRAM) | $$(CC) $$(WARNINGS) -iquote examples/apps $$(ALL_CPPFLAGS) $$(FLAGS_$(1)) \
	    -x c - -x none build/$(1)/pysock_impl.o -o $$@ $$(ALL_LDFLAGS) $$(LDLIBS)

build/$(1)/tools/%: tools/%.c build/$(1)/pysock_impl.o
	$$(LINK_PROGRAM) | $$(CC) $$(WARNINGS) $$(ALL_CPPFLAGS) $$(FLAGS_$(1)) -x c - -x none \
	    build/$(1)/pysock_impl.o -o $$@ $$(ALL_LDFLAGS) $$(LDLIBS)

build/$(1)/test_examples: | $$(TOOLS_OF_EXAMPLES:%=build/$(1)/%)
build/$(1)/test_examples_tls: | $$(TOOLS_OF_EXAMPLES_TLS:%=build/$(1)/%)

build/$(1)/whitebox_%: whitebox_%.c build/$(1)/flags
	$$(QUIET) $$(CC) -std=gnu99 $$(WARNINGS) -Itests $$(ALL_CPPFLAGS) $$(FLAGS_$(1)) $$(DEPEND) $$< \
	    -o $$@ $$(ALL_LDFLAGS) -lcmocka $$(LDLIBS) -lm
endef

$(foreach v,$(VARIANTS) macos-like,$(eval $(call variant_rules,$(v))))

build/examples/flags build/tools/flags build/bench/flags: always
	$(call write_flags,$(CC) $(ALL_CPPFLAGS) $(CFLAGS) $(ALL_LDFLAGS) $(LDLIBS))

build/examples/%: examples/%.c build/examples/flags
	$(QUIET) $(CC) $(WARNINGS) $(ALL_CPPFLAGS) $(CFLAGS) $(DEPEND) $< -o $@ $(ALL_LDFLAGS) $(LDLIBS)

build/examples/%: examples/apps/%.c build/examples/flags
	$(QUIET) $(CC) $(WARNINGS) $(ALL_CPPFLAGS) $(CFLAGS) $(DEPEND) $< -o $@ $(ALL_LDFLAGS) $(LDLIBS)

build/tools/%: tools/%.c build/tools/flags
	$(QUIET) $(CC) $(WARNINGS) $(ALL_CPPFLAGS) $(CFLAGS) $(DEPEND) $< -o $@ $(ALL_LDFLAGS) $(LDLIBS)

build/bench/%.o: tests/bench/%.c build/bench/flags
	$(QUIET) $(CC) -std=gnu99 $(WARNINGS) $(ALL_CPPFLAGS) $(CFLAGS) $(DEPEND) -c $< -o $@

build/bench/pysock_impl.o: tests/pysock_impl.c build/bench/flags
	$(QUIET) $(CC) -std=c99 $(WARNINGS) $(ALL_CPPFLAGS) $(CFLAGS) $(DEPEND) -c $< -o $@

build/bench/bench: $(BENCH_OBJECTS)
	$(QUIET) $(CC) $(CFLAGS) $^ -o $@ $(ALL_LDFLAGS) $(LDLIBS) -lm

# ---- installing: the header, and what tells pkg-config about it ----

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDE_DIR = $(DESTDIR)$(PREFIX)/include
PKGCONFIG_DIR = $(DESTDIR)$(LIBDIR)/pkgconfig

install:
	@version=$$(sed -n 's/^#define PYSOCK_VERSION "\(.*\)"$$/\1/p' '$(PYSOCK_DIR)/pysock.h') && \
	    [ -n "$$version" ] || { echo '$(PYSOCK_DIR)/pysock.h has no version' >&2; exit 1; }; \
	    install -d '$(INCLUDE_DIR)' '$(PKGCONFIG_DIR)' && \
	    install -m 644 '$(PYSOCK_DIR)/pysock.h' '$(INCLUDE_DIR)/pysock.h' && \
	    sed -e 's|@PREFIX@|$(PREFIX)|' -e "s|@VERSION@|$$version|" \
	        -e 's|@CPPFLAGS@|$(DEP_CPPFLAGS:%= %)|' -e 's|@LDFLAGS@|$(DEP_LDFLAGS:%= %)|' \
	        tools/pysock.pc.in >'$(PKGCONFIG_DIR)/pysock.pc' && \
	    chmod 644 '$(PKGCONFIG_DIR)/pysock.pc'
	@echo '$(INCLUDE_DIR)/pysock.h'
	@echo '$(PKGCONFIG_DIR)/pysock.pc'

uninstall:
	rm -f '$(INCLUDE_DIR)/pysock.h' '$(PKGCONFIG_DIR)/pysock.pc'

# ---- certificate chains of x509-limbo: at most so many false accepts and false rejects ----

LIMBO_LIMITS = 16 1

limbo: build/limbo/judge
	@[ -n '$(CASES)' ] || { echo 'make limbo CASES=FILE'; exit 2; }
	@python3 tests/limbo/cases.py '$(CASES)' >build/limbo/cases.txt
	@build/limbo/judge $(LIMBO_LIMITS) <build/limbo/cases.txt

build/limbo/flags: always
	$(call write_flags,$(CC) $(ALL_CPPFLAGS) $(CFLAGS) $(ALL_LDFLAGS) $(LDLIBS))

build/limbo/judge: tests/limbo/judge.c build/limbo/flags
	$(QUIET) $(CC) -std=gnu99 $(WARNINGS) $(ALL_CPPFLAGS) $(CFLAGS) $(DEPEND) $< -o $@ \
	    $(ALL_LDFLAGS) $(LDLIBS)

# ---- CPython's modules: see examples/cpython/README.md ----

PYTHON ?= /usr/bin/python3
CPYTHON_EXAM ?= ../shared/cpython
CPYTHON = build/cpython
CPYTHON_SUFFIX := $(if $(findstring cpython,$(MAKECMDGOALS)),$(shell $(PYTHON) -c \
    'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))' 2>/dev/null),.so)
CPYTHON_INCLUDE = $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')
CPYTHON_FLAGS = -fPIC -fvisibility=hidden -Iexamples/cpython -I$(CPYTHON)/gen \
    -isystem $(CPYTHON_INCLUDE)
CPYTHON_MODULES = $(patsubst %,$(CPYTHON)/%$(CPYTHON_SUFFIX),_socket select _ssl)
CPYTHON_OBJECT = $(QUIET) $(CC) -std=gnu11 $(WARNINGS) -Wno-missing-field-initializers \
    -Wno-pedantic $(ALL_CPPFLAGS) $(CPYTHON_FLAGS) $(CFLAGS) $(DEPEND) -c $< -o $@
CPYTHON_LINK = $(QUIET) $(CC) -shared $(CFLAGS) $(filter %.o,$^) -o $@

cpython:
	@$(SETUP) cpython
	@$(MAKE) --no-print-directory $(PARALLEL) cpython-modules

cpython-modules: $(CPYTHON_MODULES)

check-cpython: cpython
	@[ ! -d '$(CPYTHON_EXAM)' ] || $(SETUP) exam
	@PYTHON='$(PYTHON)' tools/check-cpython.sh '$(CPYTHON)' '$(CPYTHON_EXAM)'

check-cpython-short: cpython
	@$(SETUP) exam
	@PYTHON='$(PYTHON)' tools/check-cpython.sh '$(CPYTHON)'

# Likewise with AddressSanitizer and UBSan in the modules, though not in the interpreter.
check-cpython-asan:
	@$(SETUP) exam
	@$(MAKE) --no-print-directory cpython CPYTHON=build/cpython-asan CFLAGS='$(FLAGS_asan)'
	@LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 \
	    PYTHONMALLOC=malloc PYTHON='$(PYTHON)' tools/check-cpython.sh build/cpython-asan

bench-cpython: cpython
	@$(PYTHON) examples/cpython/bench_tls.py $(CPYTHON)
	@$(PYTHON) examples/cpython/bench.py $(CPYTHON)

$(CPYTHON)/flags: always
	$(call write_flags,$(CC) $(ALL_CPPFLAGS) $(CFLAGS) $(ALL_LDFLAGS) $(LDLIBS) $(PYTHON))

$(CPYTHON)/gen/%.inc: examples/cpython/%.txt examples/cpython/constants.awk
	@mkdir -p $(@D)
	@awk -f examples/cpython/constants.awk $< >$@

$(CPYTHON)/_socket.o: $(CPYTHON)/gen/_socket.inc
$(CPYTHON)/select.o: $(CPYTHON)/gen/select.inc

$(CPYTHON)/%.o: examples/cpython/%.c $(CPYTHON)/flags
	$(CPYTHON_OBJECT)

$(CPYTHON)/libpysock.so: $(CPYTHON)/library.o $(CPYTHON)/binding.o
	$(CPYTHON_LINK) $(ALL_LDFLAGS) $(LDLIBS)

$(CPYTHON)/_socket$(CPYTHON_SUFFIX): $(CPYTHON)/_socket.o $(CPYTHON)/address.o $(CPYTHON)/names.o
$(CPYTHON)/select$(CPYTHON_SUFFIX): $(CPYTHON)/select.o
$(CPYTHON)/_ssl$(CPYTHON_SUFFIX): $(CPYTHON)/_ssl.o $(CPYTHON)/ssl_context.o \
    $(CPYTHON)/ssl_connection.o $(CPYTHON)/ssl_certificate.o

$(CPYTHON_MODULES): $(CPYTHON)/libpysock.so
	$(CPYTHON_LINK) -L$(CPYTHON) -lpysock -Wl,-rpath,'$$ORIGIN'

# ---- fuzzing, by clang's libFuzzer; see tests/fuzz/README.md ----

FUZZ_CC ?= clang
FUZZ_SECONDS ?= 10
FUZZERS ?= $(notdir $(basename $(wildcard tests/fuzz/fuzz_*.c)))
FLAGS_fuzz = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# These hold the implementation, the others are linked with it.
FUZZ_INSIDE = $(notdir $(basename $(shell grep -l PYSOCK_IMPLEMENTATION tests/fuzz/fuzz_*.c)))

fuzz:
	@FUZZ_CC='$(FUZZ_CC)' $(SETUP) fuzz
	@$(MAKE) --no-print-directory $(PARALLEL) $(FUZZERS:%=build/fuzz/%)
	@set -e; for f in $(FUZZERS); do tests/fuzz/run.sh build/fuzz/$$f $(FUZZ_SECONDS); done

build/fuzz/flags: always
	$(call write_flags,$(FUZZ_CC) $(ALL_CPPFLAGS) $(FLAGS_fuzz) $(ALL_LDFLAGS) $(LDLIBS))

build/fuzz/pysock_impl.o: tests/pysock_impl.c build/fuzz/flags
	$(QUIET) $(FUZZ_CC) -std=c99 $(WARNINGS) $(ALL_CPPFLAGS) $(FLAGS_fuzz) \
	    -fsanitize=fuzzer-no-link $(DEPEND) -c $< -o $@

build/fuzz/fuzz_%: tests/fuzz/fuzz_%.c build/fuzz/pysock_impl.o build/fuzz/flags
	$(QUIET) $(FUZZ_CC) -std=gnu99 $(WARNINGS) -Itests/fuzz $(ALL_CPPFLAGS) $(FLAGS_fuzz) \
	    -fsanitize=fuzzer $(DEPEND) $< \
	    $(if $(filter fuzz_$*,$(FUZZ_INSIDE)),,build/fuzz/pysock_impl.o) -o $@ $(ALL_LDFLAGS) $(LDLIBS)

-include $(wildcard build/*/*.d build/*/examples/*.d build/*/tools/*.d)

.PHONY: all help examples build-examples tools demo install uninstall test test-plain test-asan \
    test-tsan check format mutants bench fuzz limbo clean always cpython cpython-modules check-cpython \
    check-cpython-short check-cpython-asan bench-cpython check-arch test-macos-like \
    build-tests-macos-like $(VARIANTS:%=build-tests-%)
.DELETE_ON_ERROR:
.SECONDARY:
