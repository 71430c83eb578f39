/*
 * trust.h - the certificate authorities that may vouch for Coze: the system's, and those of COZE_CA_FILE, in one file.
 *
 * libcurl parses a file of authorities once and keeps what it found, but only if it has nothing else to look at; else it
 * parses it for every connection, and keeps that as long as the connection: 30 ms and 0.8 MiB for the 144 of a usual system.
 */
#ifndef COZE_TRUST_H
#define COZE_TRUST_H

#include <stdbool.h>

struct trust {
	int fd; /* of a file in memory; -1: none */
	char path[32];
};

/*
 * Puts both files, PEM, into one that has a path while it is open. False when one of them cannot be read: then there is none.
 */
bool trust_open(struct trust *trust, const char *system_file, const char *ca_file);
void trust_close(struct trust *trust);

#endif
