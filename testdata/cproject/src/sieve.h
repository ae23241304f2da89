#ifndef SIEVE_H
#define SIEVE_H

#include <stddef.h>

/* An array of limit + 1 bytes, 1 at every prime; the caller frees it. NULL when there is no memory. */
unsigned char *sieve(size_t limit);

#endif
