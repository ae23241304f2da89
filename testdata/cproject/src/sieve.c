#include "sieve.h"

#include <stdlib.h>
#include <string.h>

unsigned char *sieve(size_t limit) {
    unsigned char *is_prime = malloc(limit + 1);
    if (is_prime == NULL)
        return NULL;
    memset(is_prime, 1, limit + 1);
    for (size_t number = 0; number < 2 && number <= limit; number++)
        is_prime[number] = 0;
    for (size_t number = 2; number * number <= limit; number++)
        if (is_prime[number])
            for (size_t multiple = number * number; multiple <= limit; multiple += number)
                is_prime[multiple] = 0;
    return is_prime;
}
