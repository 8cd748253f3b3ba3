################################################################################
#
# rdcc: compiles of a Buildroot on other machines
#
################################################################################

ifeq ($(BR2_TOOLCHAIN_EXTERNAL),y)
RDCC_WRAPPER_PACKAGE = $(firstword $(filter toolchain-external-%,$(PACKAGES)))
else
RDCC_WRAPPER_PACKAGE = host-gcc-final
endif

# In an output directory that has a toolchain: builds its wrapper with the slot, or without it.
.PHONY: toolchain-rdcc
toolchain-rdcc: $(RDCC_WRAPPER_PACKAGE)-rebuild

ifeq ($(BR2_RDCC),y)

RDCC_NAME = $(call qstrip,$(BR2_RDCC_TOOLCHAIN))
RDCC_PROGRAM := $(shell command -v $(call qstrip,$(BR2_RDCC_PROGRAM)))
ifeq ($(RDCC_PROGRAM),)
$(error BR2_RDCC is set, but there is no program $(BR2_RDCC_PROGRAM): put rdcc on PATH or set BR2_RDCC_PROGRAM)
endif

# Target, kernel and boot loader: the toolchain wrapper has a slot for ccache, and calls whatever stands there with the
# real compiler and the complete command line. Called by that name, rdcc does what is meant.
TOOLCHAIN_WRAPPER_ARGS += -DBR_CCACHE
export BR2_USE_CCACHE ?= 1
define TOOLCHAIN_WRAPPER_INSTALL +=

	ln -sf $(RDCC_PROGRAM) $(HOST_DIR)/bin/ccache
endef

ifneq ($(wildcard $(HOST_DIR)/bin/toolchain-wrapper),)
ifeq ($(wildcard $(HOST_DIR)/bin/ccache),)
ifeq ($(filter toolchain-rdcc %-rebuild,$(MAKECMDGOALS)),)
$(warning rdcc: this toolchain was built without it, so target compiles stay here; type "make toolchain-rdcc")
endif
endif
endif

# Host: links called like the compiler, in one word, which CMake, meson and unquoted $(CC) need. rdcc called by such a
# name runs the next program of that name on PATH, which has to be the one that Buildroot has chosen.
ifeq ($(BR2_RDCC_HOST),y)
RDCC_LINKS := $(BUILD_DIR)/rdcc
define RDCC_HOST_LINK # VARIABLE
ifeq ($$(shell command -v $$(notdir $$($(1)_NOCCACHE))),$$($(1)_NOCCACHE))
$$(shell mkdir -p $$(RDCC_LINKS) && ln -sf $$(RDCC_PROGRAM) $$(RDCC_LINKS)/$$(notdir $$($(1)_NOCCACHE)))
$(1) := $$(RDCC_LINKS)/$$(notdir $$($(1)_NOCCACHE))
else
$$(warning rdcc: $$($(1)_NOCCACHE) is not the first of its name on PATH, so it compiles here only)
endif
endef
$(eval $(call RDCC_HOST_LINK,HOSTCC))
$(eval $(call RDCC_HOST_LINK,HOSTCXX))
endif

# The toolchain files say what the wrapper calls, by absolute paths.
ifeq ($(BR2_TOOLCHAIN_EXTERNAL),y)
RDCC_CC = $(TOOLCHAIN_EXTERNAL_CC)
RDCC_CXX = $(if $(BR2_INSTALL_LIBSTDCPP),$(TOOLCHAIN_EXTERNAL_CXX))
else
RDCC_CC = $(TARGET_CROSS)gcc.br_real
RDCC_CXX = $(if $(BR2_INSTALL_LIBSTDCPP),$(TARGET_CROSS)g++.br_real)
endif

define RDCC_FILE # NAME C-COMPILER C++-COMPILER
	printf 'name = "%s"\ndescription = "%s"\ntarget = "%s"\ncompilers = { c = "%s"%s }\n' \
		'$(1)' 'Buildroot $(BR2_VERSION_FULL), $(BASE_DIR)' "$$($(2) -dumpmachine)" '$(2)' \
		'$(if $(3),$(comma) "c++" = "$(3)")' >$(BUILD_DIR)/rdcc/$(1).toml
endef

.PHONY: rdcc-push rdcc-push-host

ifeq ($(BR2_RDCC_HOST),y)
rdcc-push-host:
	@mkdir -p $(BUILD_DIR)/rdcc
	@$(call RDCC_FILE,$(RDCC_NAME)-host,$(HOSTCC_NOCCACHE),$(HOSTCXX_NOCCACHE))
	$(RDCC_PROGRAM) toolchain push $(RDCC_PUSH_OPTS) $(BUILD_DIR)/rdcc/$(RDCC_NAME)-host.toml
endif

# The host's compiler first, since it builds the toolchain where that is Buildroot's own.
rdcc-push: $(if $(BR2_RDCC_HOST),rdcc-push-host) toolchain
	@mkdir -p $(BUILD_DIR)/rdcc
	@$(call RDCC_FILE,$(RDCC_NAME),$(RDCC_CC),$(RDCC_CXX))
	$(RDCC_PROGRAM) toolchain push $(RDCC_PUSH_OPTS) $(BUILD_DIR)/rdcc/$(RDCC_NAME).toml

endif
