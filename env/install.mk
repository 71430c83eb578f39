# Installs and uninstalls; included by the Makefile. The variables are those of the GNU coding standards.
#
# DESTDIR  put before every path, for packages
# PREFIX   /usr/local. Not below it: sysconfdir (/etc), and /run, /var/log and /var/cache, which systemd fixes for its units
#
# What stands in sysconfdir is the administrator's: never overwritten, and removed only while it is unchanged.

PREFIX        ?= /usr/local
prefix         = $(PREFIX)
exec_prefix    = $(prefix)
bindir         = $(exec_prefix)/bin
datarootdir    = $(prefix)/share
datadir        = $(datarootdir)
docdir         = $(datarootdir)/doc/coze-chat
sysconfdir     = /etc
systemdunitdir = $(prefix)/lib/systemd/system
sysusersdir    = $(prefix)/lib/sysusers.d
tmpfilesdir    = $(prefix)/lib/tmpfiles.d
INSTALL        = install

# Of others' code, what nginx serves, with its license.
VENDOR = $(wildcard $(addprefix nginx/node_modules/markdown-it/,LICENSE dist/browser/markdown-it.esm.min.mjs) \
	$(addprefix nginx/node_modules/swagger-ui-dist/,LICENSE NOTICE favicon-32x32.png swagger-ui.css swagger-ui.css.gz \
		swagger-ui-bundle.js swagger-ui-bundle.js.gz))
SHARED = $(shell find nginx env/monitoring -name node_modules -prune -o -type f ! -name entry -print) $(VENDOR)
DOCS   = README.md env/example.env redis/redis.conf
UNITS  = coze-chat.service coze-chat-nginx.service

BIN       = $(DESTDIR)$(bindir)/coze-chatd
SHARE     = $(DESTDIR)$(datadir)/coze-chat
DOC       = $(DESTDIR)$(docdir)
SETTINGS  = $(DESTDIR)$(sysconfdir)/coze-chat/coze-chat.env
LOGROTATE = $(DESTDIR)$(sysconfdir)/logrotate.d/coze-chat
SYSUSERS  = $(DESTDIR)$(sysusersdir)/coze-chat.conf
TMPFILES  = $(DESTDIR)$(tmpfilesdir)/coze-chat.conf

# Prints a template with its names filled in.
fill = sed -e 's|@bindir@|$(bindir)|g; s|@datadir@|$(datadir)|g; s|@docdir@|$(docdir)|g; s|@sysconfdir@|$(sysconfdir)|g' \
	-e 's|@RUN_DIR@|/run/coze-chat|g; s|@LOG_DIR@|/var/log/coze-chat|g; s|@USER@|coze-chat|; s|@GROUP@|coze-chat|' env/$(1)

install: private .SHELLFLAGS = -o pipefail -c
install: all ## install below PREFIX (for a package: DESTDIR=)
	$(Q)$(INSTALL) -D -m 755 $(BUILD)/coze-chatd '$(BIN).new'
	$(Q)mv -f '$(BIN).new' '$(BIN)' # in one step: a running master may be about to start it
	$(Q)for file in $(SHARED); do \
		mode=644; [ ! -x $$file ] || mode=755; \
		$(INSTALL) -D -m $$mode $$file "$(SHARE)/$${file#env/}" || exit; \
	done
	$(Q)for file in $(DOCS); do $(INSTALL) -D -m 644 $$file "$(DOC)/$${file##*/}" || exit; done
	$(Q)for unit in $(UNITS); do \
		$(call fill,systemd/$$unit.in) | $(INSTALL) -D -m 644 /dev/stdin "$(DESTDIR)$(systemdunitdir)/$$unit" || exit; \
	done
	$(Q)$(call fill,systemd/sysusers.conf.in) | $(INSTALL) -D -m 644 /dev/stdin '$(SYSUSERS)'
	$(Q)$(call fill,systemd/tmpfiles.conf.in) | $(INSTALL) -D -m 644 /dev/stdin '$(TMPFILES)'
	$(Q)[ -e '$(LOGROTATE)' ] || $(call fill,logrotate.conf.in) | $(INSTALL) -D -m 644 /dev/stdin '$(LOGROTATE)'
	$(Q)[ -e '$(SETTINGS)' ] || $(call fill,systemd/coze-chat.env.in) | $(INSTALL) -D -m 640 /dev/stdin '$(SETTINGS)'
ifeq ($(DESTDIR),)
	@! getent group coze-chat >/dev/null || chgrp coze-chat '$(SETTINGS)' # at first there is none: systemd-tmpfiles does it
	@echo 'Installed. Next, as root:'
	@echo '  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload'
	@echo '  $$EDITOR $(SETTINGS)'
	@echo '  systemctl enable --now coze-chat coze-chat-nginx'
endif

uninstall: ## remove what `make install` installed, but no changed settings and no logs
	$(Q)rm -rf '$(SHARE)' '$(DOC)'
	$(Q)rm -f '$(BIN)' '$(SYSUSERS)' '$(TMPFILES)' $(UNITS:%='$(DESTDIR)$(systemdunitdir)/%')
	$(Q)! $(call fill,logrotate.conf.in) | cmp -s - '$(LOGROTATE)' || rm -f '$(LOGROTATE)'
	$(Q)! $(call fill,systemd/coze-chat.env.in) | cmp -s - '$(SETTINGS)' || rm -f '$(SETTINGS)'
	$(Q)rmdir '$(dir $(SETTINGS))' 2>/dev/null || [ ! -e '$(SETTINGS)' ] || echo 'kept: $(SETTINGS)'

.PHONY: install uninstall
