/* cmocka, with what its header wants before it. */
#ifndef RBOND_TEST_CMOCKA_ALL_H
#define RBOND_TEST_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
