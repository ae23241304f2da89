#include <stdio.h>
#include <stdlib.h>

#include "sieve.h"

int main(int argc, char **argv) {
    size_t limit = argc > 1 ? strtoul(argv[1], NULL, 10) : 100;
    unsigned char *is_prime = sieve(limit);
    if (is_prime == NULL)
        return 1;
    const char *separator = "";
    for (size_t number = 0; number <= limit; number++)
        if (is_prime[number]) {
            printf("%s%zu", separator, number);
            separator = " ";
        }
    puts("");
    free(is_prime);
    return 0;
}
