# gfl - make help
config ?= release
BUILD  := build/$(config)
-include Makefile.config

CC  ?= cc
CXX ?= c++
AR  ?= ar
RANLIB ?= ranlib
# Warnings are errors for developers (config=debug, config=sanitize, scripts/test, CI) and not for
# those who only build: their compiler may know new ones.
WERROR ?= $(if $(filter release,$(config)),0,1)
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(filter 1,$(WERROR)),-Werror)
CFLAGS_release  := -O3 -g
CFLAGS_debug    := -O1 -g
CFLAGS_sanitize := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
                   -fno-sanitize-recover=undefined
CFLAGS_thread   := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
ifeq ($(CFLAGS_$(config)),)
$(error config is release, debug, sanitize or thread, not "$(config)")
endif
CPPFLAGS ?=
CFLAGS   ?=
LDFLAGS  ?=
ALL_CFLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L $(CFLAGS_$(config)) $(WARN) $(CPPFLAGS) $(CFLAGS)
LINK     := $(CC) $(ALL_CFLAGS) $(LDFLAGS)
LIBS     := -lm -pthread
# With nvcc the command can use GPUs; CUDA=0 refuses.  CUDA_ARCH: "sm_80 sm_90a", or "all", which a
# build for others wants; the default is one target, as each takes half a minute.  With "all" goes
# PTX of the lowest target, which drivers compile for GPUs that have no code here.
comma     := ,
NVCC      ?= $(shell command -v nvcc 2>/dev/null)
CUDA      ?= $(if $(and $(NVCC),$(filter-out sanitize thread,$(config))),1,0)
CUDA_ARCH ?= sm_90a
ifeq ($(CUDA),1)
CUDA_HOME ?= $(abspath $(dir $(realpath $(shell command -v $(NVCC))))..)
CUDA_LIST := $(if $(filter all,$(CUDA_ARCH)),sm_80 sm_90a sm_100 sm_120,$(CUDA_ARCH))
NVCCFLAGS := -std=c++17 -O3 -lineinfo $(if $(filter 1,$(WERROR)),-Werror all-warnings) -diag-suppress 177 \
             -Xcompiler -Wall,-Wextra,-Wno-unused-function,-fPIC,-fvisibility=hidden \
             $(foreach a,$(CUDA_LIST),-gencode arch=$(a:sm_%=compute_%),code=$(a)) \
             $(if $(filter all,$(CUDA_ARCH)),-gencode arch=compute_80$(comma)code=compute_80)
CUDA_LIB  := $(BUILD)/libgfl_cuda.a
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lstdc++ -ldl -lrt
endif
VERSION  := $(shell sed -n 's/^.define GFL_VERSION_TEXT *"\(.*\)"/\1/p' gfl.h)
# GFL_ABI is what the SONAME says: 2 is 0.2, 200 is 2.
ABI      := $(shell sed -n 's/^.define GFL_ABI *//p' gfl.h)
SO       := $(shell [ $(ABI) -lt 100 ] && echo 0.$(ABI) || expr $(ABI) / 100)
MODULES  := $(wildcard src/*/*.h src/*/*.c)
COMMAND  := $(wildcard examples/cmd_*.c) examples/gfl.c

all: $(BUILD)/libgfl.a $(CUDA_LIB) $(BUILD)/gfl ## the library and the command, in build/$(config)

help: ## this list
	@echo 'make [config=release|debug|sanitize|thread] TARGET'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

# The library is built from the shipped files; tests build it from src/ as well.
$(BUILD)/gfl.o: gfl.h $(BUILD)/flags | $(BUILD)
	$(CC) -x c $(ALL_CFLAGS) -fPIC -fvisibility=hidden -DGFL_IMPLEMENTATION -c gfl.h -o $@
$(BUILD)/gfl_train.o: gfl_train.c gfl.h $(BUILD)/flags | $(BUILD)
	$(CC) $(ALL_CFLAGS) -fPIC -fvisibility=hidden -I. -c gfl_train.c -o $@
$(BUILD)/libgfl.a: $(BUILD)/gfl.o $(BUILD)/gfl_train.o
	rm -f $@ && $(AR) rc $@ $(BUILD)/gfl.o $(BUILD)/gfl_train.o && $(RANLIB) $@
# Its symbols have a version, and its own calls stay inside: two copies in one process do not mix.
$(BUILD)/libgfl.so.$(SO): $(BUILD)/gfl.o $(BUILD)/gfl_train.o
	echo 'GFL_$(SO) { global: gfl_*; local: *; };' > $(BUILD)/gfl.map
	$(LINK) -shared -Wl,-soname,libgfl.so.$(SO) -Wl,--version-script,$(BUILD)/gfl.map -Wl,-Bsymbolic \
	    $(BUILD)/gfl.o $(BUILD)/gfl_train.o -o $@ $(LIBS)
$(BUILD)/gfl: $(COMMAND) $(wildcard examples/*.h) $(BUILD)/libgfl.a $(CUDA_LIB) $(BUILD)/flags
	$(LINK) $(if $(CUDA_LIB),-DGFL_WITH_CUDA) -I. $(COMMAND) $(CUDA_LIB) \
	    $(BUILD)/libgfl.a -o $@ $(CUDA_LIBS) $(LIBS)
# Rewritten when a compiler, its flags or the targets change, so that all is built again.
define BUILT_WITH
$(CC) $(ALL_CFLAGS) $(LDFLAGS) $(AR) $(RANLIB) $(if $(CUDA_LIB),$(NVCC) $(NVCCFLAGS))
endef
$(BUILD)/flags: FORCE | $(BUILD)
	$(file >$@.new,$(BUILT_WITH))
	@cmp -s $@.new $@ && rm -f $@.new || mv -f $@.new $@
$(BUILD)/libgfl_cuda.a: gfl_cuda.cu gfl.h $(BUILD)/flags | $(BUILD)
	$(NVCC) $(NVCCFLAGS) -I. -c gfl_cuda.cu -o $(BUILD)/gfl_cuda.o
	rm -f $@ && $(AR) rc $@ $(BUILD)/gfl_cuda.o && $(RANLIB) $@
$(BUILD)/make_shapes: examples/make_shapes.c $(BUILD)/flags | $(BUILD)
	$(LINK) $< -o $@ $(LIBS)
$(BUILD):
	mkdir -p $@

cuda: ## the same, and it is an error if nvcc is not there; CUDA_ARCH="sm_80 sm_90a" or all
	@test -n "$(NVCC)" || { echo "make cuda: no nvcc in PATH" >&2; exit 1; }
	$(MAKE) CUDA=1 all

gpu-check: ## all that needs a GPU: tests, compute-sanitizer, AP, benchmarks; PARTS="build tests"
	sh scripts/gpu_check $(PARTS)

demo: $(BUILD)/gfl $(BUILD)/make_shapes ## train, evaluate and draw on generated pictures, in demo/
	sh scripts/run_demo.sh $(BUILD)

test: | $(BUILD) ## every quick test, and the long ones that need no ../shared; T=name for some
	cmake -S tests -B $(BUILD)/tests -DGFL_CONFIG=$(config) -DGFL_WERROR=$(WERROR) \
	    -DCMAKE_C_COMPILER=$(CC) >/dev/null
	cmake --build $(BUILD)/tests -j2
	cd $(BUILD)/tests && ctest --output-on-failure -j2 $(if $(T),-R '$(T)') $(if $(L),-L '$(L)') \
	    $(if $(LE),-LE '$(LE)')

bench: $(BUILD)/libgfl.a ## speed of the kernels and of whole networks, beside PyTorch where it is
	sh bench/run.sh $(BUILD)

examples: $(BUILD)/libgfl.a ## the one-idea programs
	for f in detect evaluate train distributions; do \
	    $(LINK) -I. examples/$$f.c $(BUILD)/libgfl.a -o $(BUILD)/$$f $(LIBS) || exit 1; done

FUZZ := clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
        -Isrc -D_POSIX_C_SOURCE=200809L
fuzz: | $(BUILD) ## libFuzzer targets, build/$(config)/fuzz_*, from src/ with clang
	$(FUZZ) -DGFL_IMPLEMENTATION -x c -c src/gfl.h -o $(BUILD)/fuzzed.o
	for f in $(filter-out %/fuzz_main.c,$(wildcard tests/fuzz_*.c)); do \
	    $(FUZZ) $$f src/gfl_train.c $(BUILD)/fuzzed.o -o $(BUILD)/$$(basename $$f .c) $(LIBS) || exit 1; done

amalgamate: | $(BUILD) ## write gfl.h, gfl_train.c and gfl_cuda.cu from src/
	$(CC) -std=c11 -O1 $(WARN) scripts/amalgamate.c -o $(BUILD)/amalgamate
	for f in gfl.h gfl_train.c gfl_cuda.cu; do \
	    $(BUILD)/amalgamate src/$$f > $(BUILD)/$$f && mv $(BUILD)/$$f $$f || exit 1; done

man: $(BUILD)/gfl ## after a change of the options or of examples/gfl.1.in: write the manual page
	sh scripts/manual.sh $(BUILD)/gfl > $(BUILD)/gfl.1 && mv $(BUILD)/gfl.1 examples/gfl.1

abi: amalgamate | $(BUILD) ## after a change of public declarations: write the list that a test compares
	sh tests/abi.sh $(CURDIR) $(BUILD)/abi > $(BUILD)/abi.txt && mv $(BUILD)/abi.txt tests/data/abi.txt

# The roots are not formatted: nested guards would push every #include to the right.
WRITTEN := $(MODULES) $(wildcard examples/*.[ch] tests/*.[ch] bench/*.c scripts/*.c)
format: ## clang-format of everything written by hand
	clang-format -i $(WRITTEN)
format-check: ## fail where "make format" would change something
	clang-format --dry-run -Werror $(WRITTEN)

# DESTDIR is a staging folder in front of them all.
PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR     ?= $(PREFIX)/lib
DATADIR    ?= $(PREFIX)/share
MANDIR     ?= $(DATADIR)/man
INSTALL_SH := BUILD=$(BUILD) DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' BINDIR='$(BINDIR)' \
    INCLUDEDIR='$(INCLUDEDIR)' LIBDIR='$(LIBDIR)' DATADIR='$(DATADIR)' MANDIR='$(MANDIR)' \
    VERSION=$(VERSION) SO=$(SO) CUDA_LIB=$(CUDA_LIB) CUDA_LIBS='$(CUDA_LIBS)' sh scripts/install.sh
install: $(BUILD)/libgfl.a $(BUILD)/libgfl.so.$(SO) $(BUILD)/gfl ## DESTDIR= PREFIX= LIBDIR= and others
	$(INSTALL_SH) install
uninstall: ## remove what install put there
	$(INSTALL_SH) uninstall

# What users need, with the same bytes from any folder, by any user, at any time.
DIST := $(sort gfl.h gfl_train.c gfl_cuda.cu README.md CHANGELOG.md CONTRIBUTING.md LICENSE Makefile \
    CMakeLists.txt docs/guide.md docs/spec.md $(wildcard bench/results/*.md) $(wildcard examples/*.[ch1] examples/*.cc) \
    scripts/demo scripts/install.sh scripts/run_demo.sh scripts/setup)
dist: | $(BUILD) ## the files that users need, as $(BUILD)/gfl-VERSION.tar.gz
	LC_ALL=C tar --format=ustar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner \
	    --mode='a-x,u=rwX,go=rX' --transform='s,^,gfl-$(VERSION)/,' -cf - $(DIST) | gzip -n -9 \
	    > $(BUILD)/gfl-$(VERSION).tar.gz

clean: ## remove build/ and demo/
	rm -rf build demo

FORCE:
.PHONY: FORCE all help cuda gpu-check demo test bench examples fuzz amalgamate man abi format format-check install uninstall dist clean
