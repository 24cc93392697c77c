// Unrolls the next loop. gcc -O2 does not, and an array indexed by a variable is not in registers.
#pragma once
#define UNROLL _Pragma("GCC unroll 16")
