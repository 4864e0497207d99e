/* What a compiler calls for undefined behaviour, where the handler is compiled with -fsanitize=undefined: the plugin
 * ends, and the author's line is the reason. Without the flag none of it is linked. */
#ifdef __wasm__

#include "internal.h"

/* What all reports of the compiler begin with. */
typedef struct place {
  const char *file;
  uint32_t line, column;
} place;

/* Reports after which a program may continue have another name where it must not. */
#define REPORT(name, parameters, words) ALWAYS(name##_abort, parameters, words)
#define ALWAYS(name, parameters, words)  \
  void __ubsan_handle_##name parameters; \
  void __ubsan_handle_##name parameters { wattle_panic(at->file, (int)at->line, "%s", words); }
#define ONE (const place *at)
#define TWO (const place *at, uintptr_t first)
#define THREE (const place *at, uintptr_t first, uintptr_t second)

#pragma clang diagnostic ignored "-Wunused-parameter"
REPORT(type_mismatch_v1, TWO, "a pointer is null, or points to something else than its type says")
REPORT(pointer_overflow, THREE, "a pointer is moved past the end of memory, or from null")
REPORT(out_of_bounds, TWO, "an index is outside of its array")
REPORT(add_overflow, THREE, "a sum does not fit its type")
REPORT(sub_overflow, THREE, "a difference does not fit its type")
REPORT(mul_overflow, THREE, "a product does not fit its type")
REPORT(negate_overflow, TWO, "a negative does not fit its type")
REPORT(divrem_overflow, THREE, "a division by zero, or one whose result does not fit its type")
REPORT(shift_out_of_bounds, THREE, "a shift by more bits than there are, or of a negative number")
REPORT(float_cast_overflow, TWO, "a number does not fit the type that it is converted to")
REPORT(load_invalid_value, TWO, "a boolean or an enum has a value that it cannot have")
REPORT(vla_bound_not_positive, TWO, "the length of an array is not positive")
REPORT(nonnull_arg, ONE, "an argument is null that must not be")
REPORT(nonnull_return_v1, TWO, "a result is null that must not be")
REPORT(invalid_builtin, ONE, "zero is given to a function of the compiler that does not take it")
ALWAYS(builtin_unreachable, ONE, "the end of a path is reached that should not be")
ALWAYS(missing_return, ONE, "a function ends without a result")
REPORT(function_type_mismatch, TWO, "a function is called as one of another type")

#endif
