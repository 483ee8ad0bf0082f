# gfl - make help
config ?= release
BUILD  := build/$(config)
PREFIX ?= /usr/local
-include Makefile.config

CC  ?= cc
CXX ?= c++
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
CFLAGS_release  := -O3 -g
CFLAGS_debug    := -O1 -g
CFLAGS_sanitize := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
                   -fno-sanitize-recover=undefined
ifeq ($(CFLAGS_$(config)),)
$(error config is release, debug or sanitize, not "$(config)")
endif
CFLAGS   ?=
ALL_CFLAGS := -std=c11 $(CFLAGS_$(config)) $(WARN) $(CFLAGS)
LIBS     := -lm -pthread
VERSION  := $(shell sed -n 's/^.define GFL_VERSION_TEXT *"\(.*\)"/\1/p' src/api/config.h)
MAJOR    := $(firstword $(subst ., ,$(VERSION)))
MODULES  := $(wildcard src/*/*.h src/*/*.c) src/gfl.h src/gfl_train.c
COMMAND  := $(wildcard examples/cmd_*.c) examples/gfl.c

all: $(BUILD)/libgfl.a $(BUILD)/gfl ## the library and the command, in build/$(config)

help: ## this list
	@echo 'make [config=release|debug|sanitize] TARGET'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

# The library is built from the shipped files; tests build it from src/ as well.
$(BUILD)/gfl.o: gfl.h | $(BUILD)
	$(CC) -x c $(ALL_CFLAGS) -fPIC -fvisibility=hidden -DGFL_IMPLEMENTATION -c gfl.h -o $@
$(BUILD)/gfl_train.o: gfl_train.c gfl.h | $(BUILD)
	$(CC) $(ALL_CFLAGS) -fPIC -fvisibility=hidden -I. -c gfl_train.c -o $@
$(BUILD)/libgfl.a: $(BUILD)/gfl.o $(BUILD)/gfl_train.o
	rm -f $@ && ar rcs $@ $^
$(BUILD)/libgfl.so.$(MAJOR): $(BUILD)/gfl.o $(BUILD)/gfl_train.o
	$(CC) $(ALL_CFLAGS) -shared -Wl,-soname,libgfl.so.$(MAJOR) $^ -o $@ $(LIBS)
$(BUILD)/gfl: $(COMMAND) $(wildcard examples/*.h) $(BUILD)/libgfl.a
	$(CC) $(ALL_CFLAGS) -I. $(COMMAND) $(BUILD)/libgfl.a -o $@ $(LIBS)
$(BUILD)/make_shapes: examples/make_shapes.c | $(BUILD)
	$(CC) $(ALL_CFLAGS) $< -o $@ $(LIBS)
$(BUILD):
	mkdir -p $@

demo: $(BUILD)/gfl $(BUILD)/make_shapes ## train, evaluate and draw on generated pictures, in demo/
	sh scripts/run_demo.sh $(BUILD)

test: | $(BUILD) ## every quick test, and the long ones that need no ../shared; T=name for some
	cmake -S tests -B $(BUILD)/tests -DGFL_CONFIG=$(config) -DCMAKE_C_COMPILER=$(CC) >/dev/null
	cmake --build $(BUILD)/tests -j2
	cd $(BUILD)/tests && ctest --output-on-failure -j2 $(if $(T),-R '$(T)') $(if $(L),-L '$(L)') \
	    $(if $(LE),-LE '$(LE)')

bench: $(BUILD)/libgfl.a ## speed of the kernels and of whole networks, beside PyTorch where it is
	sh bench/run.sh $(BUILD)

examples: $(BUILD)/libgfl.a ## the one-idea programs
	for f in detect evaluate train distributions; do \
	    $(CC) $(ALL_CFLAGS) -I. examples/$$f.c $(BUILD)/libgfl.a -o $(BUILD)/$$f $(LIBS) || exit 1; done

FUZZ := clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
        -Isrc -D_POSIX_C_SOURCE=200809L
fuzz: | $(BUILD) ## libFuzzer targets, build/$(config)/fuzz_*, from src/ with clang
	$(FUZZ) -DGFL_IMPLEMENTATION -x c -c src/gfl.h -o $(BUILD)/fuzzed.o
	for f in tests/fuzz_[!m]*.c; do \
	    $(FUZZ) $$f src/gfl_train.c $(BUILD)/fuzzed.o -o $(BUILD)/$$(basename $$f .c) $(LIBS) || exit 1; done

amalgamate: | $(BUILD) ## write gfl.h, gfl_train.c and gfl_cuda.cu from src/
	$(CC) -std=c11 -O1 $(WARN) scripts/amalgamate.c -o $(BUILD)/amalgamate
	for f in gfl.h gfl_train.c gfl_cuda.cu; do \
	    $(BUILD)/amalgamate src/$$f > $(BUILD)/$$f && mv $(BUILD)/$$f $$f || exit 1; done

format: ## clang-format of everything written by hand
	clang-format -i $(MODULES) examples/*.[ch] tests/*.[ch] bench/*.c scripts/*.c

install: $(BUILD)/libgfl.a $(BUILD)/libgfl.so.$(MAJOR) $(BUILD)/gfl ## DESTDIR= PREFIX=
	BUILD=$(BUILD) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) VERSION=$(VERSION) sh scripts/install.sh

clean: ## remove build/ and demo/
	rm -rf build demo

.PHONY: all help demo test bench examples fuzz amalgamate format install clean
