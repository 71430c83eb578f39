/*
 * digits.h - numbers as text, where printf() would cost more than all the rest.
 */
#ifndef BASE_DIGITS_H
#define BASE_DIGITS_H

#include <stddef.h>
#include <stdint.h>

#define DIGITS_SIZE 21 /* of the longest number and a NUL */

/* Writes the number and a NUL; returns how many digits it has. */
size_t digits_write(char out[DIGITS_SIZE], uint64_t number);

#endif
